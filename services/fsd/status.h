/* What fsd tells of itself: the status socket, systemd's STATUS line, the watchdog. */
#ifndef SCOUTFS_FSD_STATUS_H
#define SCOUTFS_FSD_STATUS_H

#include "fsd.h"

enum fsd_phase {
	PHASE_DEVICES,		/* blockd is waited for, the devices are looked at */
	PHASE_LEADER,		/* a leader is waited for */
	PHASE_OPENING,		/* transaction, root */
	PHASE_MOUNTED,
	PHASE_UNMOUNTING,	/* the kernel lets go */
	PHASE_COMMITTING,	/* the last commit */
	PHASE_LEAVING,		/* farewell */
};

/* What each phase shows exists from its beginning and until a later phase without it begins. */
int status_start(struct fsd *fsd);
void status_phase(enum fsd_phase phase);
enum fsd_phase status_get_phase(void);
/* It is being detached, and its phase stays as long as programs are served: what is shown does not. */
void status_unmounts(void);
/* Before anything it shows is freed: nothing but the phase is shown from here on. */
void status_detach(void);
void status_stop(void);

/*
 * What is shown before the farewell stays as it is until status_unpin(), for a thread that looks at it, or ends the
 * process; *phase is where it is, and stays there.  false: it may be gone already, and nothing is to be unpinned.
 */
bool status_pin(enum fsd_phase *phase);
void status_unpin(void);

#endif
