/* What advisory.c and advisory_rows.c share. */
#ifndef SCOUTFS_FSD_ADVISORY_IMPL_H
#define SCOUTFS_FSD_ADVISORY_IMPL_H

#include <pthread.h>

#include "advisory.h"
#include "advisory/adv_table.h"
#include "items.h"

struct lock_op;
struct give_back;

struct advisory {
	struct fsd *fsd;
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	pthread_t thread;
	struct adv_table *table;
	struct lock_op *waiting;
	uint64_t waiting_nr;
	unsigned asked_nr;		/* questions of programs that the leader has not answered */
	struct give_back *giving;
	unsigned giving_nr, unsent_nr;	/* of these: with a call; without */
	bool is_ending;			/* nobody waits any more */
	bool is_stopping;
	_Atomic uint64_t last_fh;
};

/*
 * The row of ask's owner and file is what the table has of them at this moment; without any, it goes.  0; as
 * items_error; -ENOMEM.
 */
int advisory_put_row(struct itx *tx, struct advisory_ask *ask);
/*
 * The same in a transaction of its own: less is held than the row says, and that must not be told any more before
 * somebody else may get it.  May wait for room in the item cache; fsd ends where it cannot be done.
 */
void advisory_shrink_row(struct fsd *fsd, struct advisory_ask *ask);
/* For items_run with struct advisory: the rows into the table, which is empty.  -EIO: a row makes no sense. */
int advisory_load_rows(struct itx *tx, void *advisory);
/* For items_run: there are no rows. */
int advisory_forget_rows(struct itx *tx, void *advisory);

#endif
