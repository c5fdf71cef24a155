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
	uint64_t from, to;	/* the last answer; the next one begins there, or there was none: to is 0 */
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

/* A program may take a part of an answer, and ask for the rest again. */
static bool goes_on(const struct listing *l, uint64_t off)
{
	return off > 0 && off >= l->from && off <= l->to;
}

uint64_t listing_end(uint64_t fh, uint64_t off, uint64_t next_pos)
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
	} else if (goes_on(l, off)) {
		end = l->end;
	} else {
		l->end = next_pos;
	}
	pthread_mutex_unlock(&listings.mutex);
	return end;
}

void listing_gave(uint64_t fh, uint64_t off, uint64_t reached)
{
	struct listing *l;

	pthread_mutex_lock(&listings.mutex);
	l = *find(fh);
	if (l) {
		l->from = off;
		/* at its end it is over: who asks for more begins anew */
		l->to = reached > off ? reached : 0;
	}
	pthread_mutex_unlock(&listings.mutex);
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
