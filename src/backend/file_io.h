/* SPDX-License-Identifier: MIT */
/*
 * What an open file is, and transfers on it: all bytes or an error, whatever the system calls take.
 */
#ifndef ZQ_BACKEND_FILE_IO_H
#define ZQ_BACKEND_FILE_IO_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#include <zqcow2/backend.h>

#include "base/mem.h"

/* Beyond 2 GiB a shorter one would wrap, and hit the header. */
_Static_assert(sizeof(off_t) == 8, "_FILE_OFFSET_BITS=64 is missing");

/*
 * Members without another note are fixed after set_up(). Those that are atomic are written by any
 * thread that transfers; lock_mode only by the thread that opens, closes or checks an image.
 */
struct zq_file {
    struct zqcow2_hooks hooks;
    int fd;                   /* ours, not below ZQ_FD_MIN; transfers use no position of it */
    int lock_fd;              /* the same file, opened for its locks alone; -1: locks go to fd */
    int given;                /* what adopt() was handed, if that is not fd itself; else -1 */
    bool writable, is_device; /* fixed: what the descriptor allows, and block device */
    atomic_bool uncached;     /* ZQCOW2_FILE_DONTCACHE, until the kernel refuses it */
    uint32_t io_align, buf_align; /* 1 without O_DIRECT */
    int lock_mode;                /* zqcow2_lock that is held */
    _Atomic uint64_t reach; /* of a regular file: it was at least so long, and must be still */
    atomic_bool cut;        /* it was not: every flush fails until somebody else may use it again */
    atomic_bool no_punch;   /* the file system cannot punch holes: not asked again */
    /*
     * A block device cannot shrink, so its length is kept here; bytes between it and the
     * device's end are stale and are zeroed when the length grows over them, under the mutex.
     */
    uint64_t device_bytes;
    _Atomic uint64_t device_length;
    pthread_mutex_t grow;
};

static inline bool zq_file_direct(const struct zq_file *f)
{
    return f->io_align > 1;
}

/* The kernel has refused the flag: it does so for every transfer of this file. */
static inline void zq_file_no_uncached(struct zq_file *f)
{
    atomic_store_explicit(&f->uncached, false, memory_order_relaxed);
}

static inline bool zq_file_uncached(const struct zq_file *f)
{
    return atomic_load_explicit(&f->uncached, memory_order_relaxed);
}

/* The same transfer from `done` bytes on, for one that was begun elsewhere. */
int zq_file_read_rest(struct zq_file *f, const struct iovec *iov, int cnt, uint64_t off,
                      uint64_t done);
int zq_file_write_rest(struct zq_file *f, const struct iovec *iov, int cnt, uint64_t off,
                       uint64_t done);
/* Something was written up to `end`. */
void zq_file_reached(struct zq_file *f, uint64_t end);
/*
 * The length is about to become `bytes`. Before a cut: between the two a check by another thread
 * must not see a shorter file than it expects. After growing: zq_file_reached().
 */
static inline void zq_file_cuts(struct zq_file *f, uint64_t bytes)
{
    if (bytes < atomic_load(&f->reach))
        atomic_store(&f->reach, bytes);
}
/* A new life: it may be as long as it likes. */
void zq_file_forget_length(struct zq_file *f);
/*
 * -EIO if another program has truncated the file. keeps_end: call it before a write, or a change of
 * the length, that reaches `end`: it could hide the truncation; within the file the check is free.
 * met_end: after a read that found no more than `end` bytes.
 */
int zq_file_check_length(struct zq_file *f);
int zq_file_keeps_end(struct zq_file *f, uint64_t end);
int zq_file_met_end(struct zq_file *f, uint64_t end);
/* Within the length. Offsets fit the alignment; from is a multiple of it. */
int zq_file_write_zeros(struct zq_file *f, uint64_t from, uint64_t to);

/* What is left of a vector of which some bytes are done; the caller's array stays untouched. */
struct zq_cursor {
    const struct iovec *iov;
    int cnt;
    size_t skip; /* of iov[0] */
};
void zq_cursor_skip(struct zq_cursor *c, uint64_t n);
uint64_t zq_cursor_total(const struct iovec *iov, int cnt);
/* Is the next element all that a call should take: the only one, or one that is done in part? */
static inline bool zq_cursor_flat(const struct zq_cursor *c, void **p, size_t *n)
{
    *p = (char *)c->iov->iov_base + c->skip;
    *n = c->iov->iov_len - c->skip;
    return c->skip || c->cnt == 1;
}
/* Fills what is left with zeros, up to `most` bytes. */
void zq_cursor_zero(struct zq_cursor *c, uint64_t most);
/*
 * Both punch a hole: on the file systems that can do it, reading a hole returns zeros. -EOPNOTSUPP:
 * not here, and the library writes zeros or does without.
 */
int zq_file_discard(void *self, uint64_t off, uint64_t len);
int zq_file_zero(void *self, uint64_t off, uint64_t len);

#endif
