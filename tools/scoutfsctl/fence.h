/* `scoutfsctl fence agent`: fence_agent.c. */
#ifndef SCOUTFSCTL_FENCE_H
#define SCOUTFSCTL_FENCE_H

/* Serve the fence requests of the instance of that NAME or FILE until told to end; an exit status. */
int fence_agent(const char *name);

#endif
