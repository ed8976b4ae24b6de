/* SPDX-License-Identifier: MIT */
/* How a lock is held in an open file description. Modes: zqcow2_lock_mode. */
#ifndef ZQ_BACKEND_LOCK_HELD_H
#define ZQ_BACKEND_LOCK_HELD_H

/* -EAGAIN: another description is in the way, and `from` is held as before. */
int zq_lock_change(int fd, int from, int to);
/*
 * fd holds the mode as well, though another description of this process does. Where two cannot
 * hold it, nothing happens.
 */
void zq_lock_hold_too(int fd, int mode);

#endif
