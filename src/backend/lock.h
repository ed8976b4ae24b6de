/* SPDX-License-Identifier: MIT */
/* Locks on image files. */
#ifndef ZQ_BACKEND_LOCK_H
#define ZQ_BACKEND_LOCK_H

#include "backend/file_io.h"

/* Sets lock_fd. path may be NULL. */
void zq_file_lock_open(struct zq_file *f, const char *path);
void zq_file_lock_close(struct zq_file *f);
int zq_file_lock(void *self, int mode);

#endif
