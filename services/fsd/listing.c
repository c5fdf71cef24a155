/*
 * Where listings end.
 *
 * A name that is moved gets a new position, behind all others.  Who moves what it reads would meet each name again and
 * again, for ever; so a listing ends at the position that was the next one when it began.  The kernel keeps no such number for
 * an open directory, hence one here for each that is being read.  The process after this one does not know them: for it
 * such a listing begins where it was.
 */
#include "listing.h"

#include <pthread.h>
#include <stdlib.h>

#define BUCKETS 1024u

struct listing {
	struct listing *next;
	uint64_t fh, end;
};

static struct {
	pthread_mutex_t mutex;
	struct listing *buckets[BUCKETS];
} listings = { .mutex = PTHREAD_MUTEX_INITIALIZER };

/* The link that leads to it, or to where it belongs.  The mutex is held. */
static struct listing **find(uint64_t fh)
{
	struct listing **at = &listings.buckets[fh % BUCKETS];	/* fhs count up */

	while (*at && (*at)->fh != fh)
		at = &(*at)->next;
	return at;
}

uint64_t listing_end(uint64_t fh, bool begins, uint64_t next_pos)
{
	uint64_t end = next_pos;
	struct listing **at, *l;

	if (!fh)
		return end;
	pthread_mutex_lock(&listings.mutex);
	at = find(fh);
	l = *at;
	if (!l) {
		l = calloc(1, sizeof(*l));
		if (l)
			*l = (struct listing){ .fh = fh, .end = next_pos };
		*at = l;
	} else if (begins) {
		l->end = next_pos;
	} else {
		end = l->end;
	}
	pthread_mutex_unlock(&listings.mutex);
	return end;
}

void listing_closed(uint64_t fh)
{
	struct listing **at, *l;

	pthread_mutex_lock(&listings.mutex);
	at = find(fh);
	l = *at;
	if (l)
		*at = l->next;
	pthread_mutex_unlock(&listings.mutex);
	free(l);
}
