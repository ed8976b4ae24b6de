/* SPDX-License-Identifier: MIT */
/*
 * Faults on a live disk: a backend over another one, the inner backend, that loses on request what
 * was not flushed, and fails or delays requests by rules. The same seed and the same requests give
 * the same faults. It is meant for tests of file systems, drivers and databases on an image in use.
 * See zqcow2_faults_wrap(3).
 *
 * Held         A write, zero, discard or truncate is held in memory until a flush, which applies
 *              all held changes to the inner backend in their order, and flushes it. Reads return
 *              the inner bytes with the held changes on top; a held discard does not change what
 *              reads return.
 * Cut          A loss of power. A seeded part of the held changes reaches the inner backend, the
 *              rest is lost.
 *
 * Several threads may use one object and its backend at the same time. Requests are served one at a
 * time, except that several may be delayed at once.
 */
#ifndef ZQCOW2_FAULTS_H
#define ZQCOW2_FAULTS_H

#include <zqcow2/backend.h>

#ifdef __cplusplus
extern "C" {
#endif

struct zqcow2_faults;

struct zqcow2_faults_options {
    size_t size;
    /*
     * Bytes of memory for held changes; 0: 64 MiB. If a change does not fit, the oldest held
     * changes are applied to the inner backend first: a cut can no longer lose them.
     */
    uint64_t max_held;
    /*
     * Receives a line of ASCII text, without a line feed, for each thing that was done; NULL: no
     * log. It is called in the order of these things, in any thread that uses the backend. It must
     * not use the object or the backend.
     */
    void (*log)(void *arg, const char *line);
    void *log_arg;
    const struct zqcow2_hooks *hooks; /* NULL: defaults */
};
#define ZQCOW2_FAULTS_OPTIONS_INIT \
    { \
        sizeof(struct zqcow2_faults_options), 0, NULL, NULL, NULL \
    }

/*
 * On success *f owns inner. opt NULL: defaults.
 * -EOPNOTSUPP: inner is asynchronous and lacks ZQCOW2_CAP_BLOCKING_CALLS. Wrap a blocking backend
 * instead, and the new one in zqcow2_threads_wrap(). -EBUSY: inner is in use. -EINVAL, -ENOMEM, or
 * what the length() of inner returned.
 */
ZQCOW2_API int zqcow2_faults_wrap(struct zqcow2_backend *inner,
                                  const struct zqcow2_faults_options *opt,
                                  struct zqcow2_faults **f);
/*
 * Applies what is held to the inner backend, without a flush, and closes it. Errors appear in the
 * log only. The backend on f must be closed before. NULL is allowed.
 */
ZQCOW2_API void zqcow2_faults_free(struct zqcow2_faults *f);
/*
 * A blocking backend on f. One at a time: -EBUSY. Closing it does not change what is held, so that
 * an image can be opened again after a cut. It has the limits of the inner backend.
 */
ZQCOW2_API int zqcow2_faults_backend(struct zqcow2_faults *f, struct zqcow2_backend **be);
/* The number of changes that are held. */
ZQCOW2_API uint64_t zqcow2_faults_held(struct zqcow2_faults *f);

/* ---- losing power ---- */

/* What a cut keeps of the held changes. */
enum zqcow2_faults_how {
    ZQCOW2_FAULTS_LOSE_ALL,
    ZQCOW2_FAULTS_KEEP_ALL,
    ZQCOW2_FAULTS_WHOLE, /* each change survives whole or is lost */
    /*
     * Each aligned unit of 512 or 4096 bytes of a change survives or is lost; some changes survive
     * or are lost whole, and a truncate always. A unit is never smaller than io_align and
     * atomic_write of the inner backend, and larger if a change has more than 65536 units.
     */
    ZQCOW2_FAULTS_TORN_512,
    ZQCOW2_FAULTS_TORN_4096,
    /* Added to one of the others: the changes that survive are applied in a shuffled order. */
    ZQCOW2_FAULTS_REORDER = 1 << 8
};

/*
 * Turns power off. What survives of the held changes is applied to the inner backend, which is then
 * flushed; nothing is held any more. From then on every call of the backend returns -EIO, except
 * lock and invalidate.
 * how: zqcow2_faults_how; seed determines all choices. -EINVAL: unknown bits in how. -EIO: power is
 * off already. Any other error is the first that the inner backend returned; power is off then.
 */
ZQCOW2_API int zqcow2_faults_cut(struct zqcow2_faults *f, uint64_t seed, uint32_t how);
/* Turns power on again. Close what was open on the backend first, and open it again afterwards. */
ZQCOW2_API void zqcow2_faults_restore(struct zqcow2_faults *f);

/* ---- failing and delaying requests ---- */

/*
 * A rule counts the requests of its kinds that touch its range, from 1, in the order in which they
 * begin. Request `nth` is hit, and if `every` is not 0, so is each `every`-th request after it. A
 * request that fails changes nothing. Each rule counts on its own; if several rules hit one
 * request, the oldest one that has an error determines the error, and the delays add up.
 */
struct zqcow2_faults_rule {
    size_t size;
    uint64_t nth, every;
    uint64_t count;          /* at most so many requests are hit; 0: no limit */
    uint64_t offset, length; /* bytes of the backend; length 0: to the end. Flushes and truncates
                                touch every range. */
    uint64_t seed;           /* of the delays */
    uint32_t kinds;          /* 1u << zqcow2_io_kind, or'ed */
    int error;               /* what the call returns: -4095 .. -1; 0: the request does not fail */
    uint32_t delay_min, delay_max; /* microseconds that the thread sleeps first: an evenly
                                      distributed number in this range. At most one minute. */
};
#define ZQCOW2_FAULTS_RULE_INIT \
    { \
        sizeof(struct zqcow2_faults_rule), 1, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/* Adds a copy of the rule. Rules are numbered in the log from 1. -EINVAL, -E2BIG, -ENOMEM. */
ZQCOW2_API int zqcow2_faults_add_rule(struct zqcow2_faults *f,
                                      const struct zqcow2_faults_rule *rule);
/* Removes all rules. */
ZQCOW2_API void zqcow2_faults_clear_rules(struct zqcow2_faults *f);

#ifdef __cplusplus
}
#endif
#endif
