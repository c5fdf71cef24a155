/*
 * Whose turn it is: a mutex that one thread is always the next to have.
 *
 * The mutexes of pthread are not fair: who unlocks one and locks it again a moment later has it again, for whoever
 * waits has to be waked first.  A thread that does so without end, as the worker's under load, keeps the others
 * out for as long as it likes.
 *
 * Promise: from when turns_lock_first was called until it has the mutex, nobody gets it by turns_lock who had not
 * looked before.  So it waits for one holder, or two.
 */
#include "turns.h"

void turns_lock_first(struct turns *t, pthread_mutex_t *m)
{
	atomic_store(&t->is_wanted, true);
	pthread_mutex_lock(m);
	atomic_store(&t->is_wanted, false);
	pthread_cond_broadcast(&t->had);
}

void turns_lock(struct turns *t, pthread_mutex_t *m)
{
	pthread_mutex_lock(m);
	while (atomic_load(&t->is_wanted))
		pthread_cond_wait(&t->had, m);
}

bool turns_is_wanted(struct turns *t)
{
	return atomic_load(&t->is_wanted);
}
