/* What /proc/PID/mountinfo and /proc/swaps say: proc(5). */
#ifndef SCOUTFS_MOUNTINFO_H
#define SCOUTFS_MOUNTINFO_H

/* A path in it, in place: blanks, tabs, newlines and backslashes stand there as \ and three octal digits. */
void mountinfo_unescape(char *s);

#endif
