/* SPDX-License-Identifier: MIT */
/* A block device as a file that can shrink and grow. */
#ifndef ZQ_BACKEND_BLOCKDEV_H
#define ZQ_BACKEND_BLOCKDEV_H

#include "backend/file_io.h"

/* Sets device_length and device_bytes. */
int zq_blockdev_adopt(struct zq_file *f);
/* Grows the length to at least `end`, zeroing what it gains. -ENOSPC beyond the device. */
int zq_blockdev_grow(struct zq_file *f, uint64_t end);
/*
 * Only moves the length: the device keeps its bytes, which are zeroed when the length grows again.
 */
void zq_blockdev_shrink(struct zq_file *f, uint64_t bytes);

#endif
