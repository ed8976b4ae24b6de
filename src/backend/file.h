/* SPDX-License-Identifier: MIT */
/*
 * A host file or block device, blocking: what the file backend is, and what the io_uring backend
 * falls back on. Functions that take `self` fit struct zqcow2_backend_ops; self is a zq_file.
 */
#ifndef ZQ_BACKEND_FILE_H
#define ZQ_BACKEND_FILE_H

#include "backend/file_io.h"
#include "backend/lock.h"

/* flags: zqcow2_file_flag. On failure nothing is held. */
int zq_file_open(struct zq_file *f, const char *path, unsigned flags,
                 const struct zqcow2_hooks *hooks);
/* fd stays the caller's until keep(). */
int zq_file_adopt(struct zq_file *f, int fd, const struct zqcow2_hooks *hooks);
void zq_file_keep(struct zq_file *f);
/*
 * For an open file that has been kept, or that path named: gives up the lock and closes everything.
 */
void zq_file_close(struct zq_file *f);
/* The way back of adopt, instead of keep: fd stays open, with the caller. */
void zq_file_give_back(struct zq_file *f);

/* The callbacks of zqcow2_backend_ops that each backend over a zq_file shares. */
int zq_file_length(void *self, uint64_t *bytes);
int zq_file_readv(void *self, const struct iovec *iov, int cnt, uint64_t off);
int zq_file_writev(void *self, const struct iovec *iov, int cnt, uint64_t off);
int zq_file_flush(void *self);
int zq_file_limits(void *self, struct zqcow2_limits *out);
int zq_file_truncate(void *self, uint64_t bytes);
int zq_file_allocate(void *self, uint64_t off, uint64_t len);
int zq_file_data(void *self, uint64_t off, uint64_t *begin, uint64_t *end);
void zq_file_invalidate(void *self);

/* What every table of callbacks on a zq_file begins with. */
#define ZQ_FILE_OPS \
    .size = sizeof(struct zqcow2_backend_ops), .length = zq_file_length, .readv = zq_file_readv, \
    .writev = zq_file_writev, .flush = zq_file_flush, .truncate = zq_file_truncate, \
    .discard = zq_file_discard, .zero = zq_file_zero, .lock = zq_file_lock, \
    .invalidate = zq_file_invalidate, .allocate = zq_file_allocate, .data = zq_file_data

#endif
