/* SPDX-License-Identifier: MIT */
/* Locks on image files. */
#ifndef ZQ_BACKEND_LOCK_H
#define ZQ_BACKEND_LOCK_H

#include "backend/file_io.h"

/* Sets lock_fd, or -1 where the file cannot be opened a second time. path may be NULL. */
void zq_file_lock_open(struct zq_file *f, const char *path);
void zq_file_lock_close(struct zq_file *f);
/*
 * mode: of enum zqcow2_lock. Changes from whatever is held now; -EAGAIN if another user of the file
 * does not allow it, and then nothing has changed.
 */
int zq_file_lock(void *self, int mode);

#endif
