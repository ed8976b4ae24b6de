/* SPDX-License-Identifier: MIT */
/*
 * What the library asks of an operating system beyond POSIX.1-2008. os_linux.c has it for Linux;
 * os_posix.c, chosen by -DZQCOW2_PORTABLE=ON, does without where it can. Nothing else in src/
 * but the io_uring backend uses a call that is not in POSIX.
 */
#ifndef ZQ_BASE_OS_H
#define ZQ_BASE_OS_H

#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* ---- open(2), lseek(2), clocks: what a system lacks is 0 or a constant that it refuses ---- */

#if !defined(ZQ_OS_PORTABLE) && defined(O_DIRECT)
#define ZQ_O_DIRECT O_DIRECT
#else
#define ZQ_O_DIRECT 0 /* zqcow2_file_open() refuses ZQCOW2_FILE_DIRECT */
#endif

#if !defined(ZQ_OS_PORTABLE) && defined(O_PATH)
#define ZQ_O_PATH O_PATH
#else
#define ZQ_O_PATH 0 /* there is no descriptor that cannot read */
#endif

#ifdef F_FULLFSYNC
#define ZQ_F_FULLFSYNC F_FULLFSYNC
#else
#define ZQ_F_FULLFSYNC 0 /* fsync(2) is enough */
#endif

/*
 * The clock of timed waits on a condition, and of measured times: monotonic, where a condition can
 * have it, so that a change of the time of day does not stretch a wait.
 */
#if defined(_POSIX_CLOCK_SELECTION) && _POSIX_CLOCK_SELECTION > 0
#define ZQ_WAIT_CLOCK                     CLOCK_MONOTONIC
#define zq_condattr_setclock(attr, clock) pthread_condattr_setclock(attr, clock)
#else
#define ZQ_WAIT_CLOCK                     CLOCK_REALTIME
#define zq_condattr_setclock(attr, clock) ((void)(attr), 0)
#endif

/* ---- an event: a descriptor that is readable while it is set ---- */

struct zq_event {
    int fd; /* -1: none */
    int tx; /* what is written to set it; may be fd */
};

#define ZQ_EVENT_NONE ((struct zq_event){-1, -1})

/* -errno; on failure *e is ZQ_EVENT_NONE. Descriptors are ZQ_FD_MIN or more. */
int zq_event_open(struct zq_event *e);
void zq_event_close(struct zq_event *e);
/* Any thread. False: the system refused, and the event may be clear. */
bool zq_event_set(const struct zq_event *e);
/* True: it is clear now, also if it was before. */
bool zq_event_clear(const struct zq_event *e);

/* ---- a joint: a descriptor that is readable while one of those that were added is ---- */

/* The descriptor, ZQ_FD_MIN or more; -EOPNOTSUPP: this system has none. */
int zq_joint_open(void);
/* fd may be what a backend returned: a negative one is returned. */
int zq_joint_add(int joint, int fd);
void zq_joint_remove(int joint, int fd);

/* ---- ranges of a file: all keep its length, or return -EOPNOTSUPP ---- */

int zq_os_punch(int fd, uint64_t off, uint64_t len);      /* frees the space; reads as zeros */
int zq_os_zero_range(int fd, uint64_t off, uint64_t len); /* has space; reads as zeros */
int zq_os_reserve(int fd, uint64_t off, uint64_t len);    /* has space; reads as before */
/*
 * preadv(2) and pwritev(2), except that pages do not stay in the page cache for the sake of this
 * call. EOPNOTSUPP: not for this file.
 */
ssize_t zq_os_uncached(int fd, bool write, const struct iovec *iov, int cnt, uint64_t off);
#define ZQ_RWF_DONTCACHE 0x80 /* what it asks for, of Linux 6.14: headers may be older */
/* The first data at or after off: [*begin, *end), empty if there is none. */
int zq_os_next_data(int fd, uint64_t off, uint64_t *begin, uint64_t *end);

/* ---- whole files and devices ---- */

/* Makes content and length durable. -errno. */
int zq_os_sync(int fd);
/* Asks the system to read clean pages from the file again. */
void zq_os_drop_cache(int fd);
/* The size of a block device, in bytes. */
int zq_os_device_bytes(int fd, uint64_t *bytes);

#endif
