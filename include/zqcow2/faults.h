/* SPDX-License-Identifier: MIT */
/*
 * Faults on a live disk: a backend on top of another one, the inner backend. On request it loses
 * data that was not flushed, and it fails or delays requests according to rules. The same seed and
 * the same requests give the same faults. It is meant for tests of file systems, drivers and
 * databases that use an image. See zqcow2_faults_wrap(3).
 *
 * Held         A write, zero, discard or truncate is held in memory until a flush. The flush
 *              applies all held changes to the inner backend in their order, and flushes it. Reads
 *              return the inner bytes with the held changes on top; a held discard does not change
 *              what reads return.
 * Cut          A loss of power. Some of the held changes, chosen by a seed, reach the inner
 *              backend; the rest are lost.
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
     * Receives a line of ASCII text, without a line feed, for each action; NULL: no log. It is
     * called in the order of the actions, in any thread that uses the backend. It must use neither
     * the object nor the backend.
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
 * instead, and pass the new backend to zqcow2_threads_wrap(). -EBUSY: inner is in use. Other
 * errors: -EINVAL, -ENOMEM, and those of inner's length().
 */
ZQCOW2_API int zqcow2_faults_wrap(struct zqcow2_backend *inner,
                                  const struct zqcow2_faults_options *opt,
                                  struct zqcow2_faults **f);
/*
 * Applies the held changes to the inner backend, without a flush, and closes it. Errors appear in
 * the log only. Close the backend on f first. NULL is allowed.
 */
ZQCOW2_API void zqcow2_faults_free(struct zqcow2_faults *f);
/*
 * Makes a blocking backend on f, with the limits of the inner backend. Closing it keeps the held
 * changes, and a new backend can then be made, for example to open an image after a cut. -EBUSY: f
 * has a backend already.
 */
ZQCOW2_API int zqcow2_faults_backend(struct zqcow2_faults *f, struct zqcow2_backend **be);
/* Returns the number of held changes. */
ZQCOW2_API uint64_t zqcow2_faults_held(struct zqcow2_faults *f);

/* ---- losing power ---- */

/* What a cut keeps of the held changes. */
enum zqcow2_faults_how {
    ZQCOW2_FAULTS_LOSE_ALL,
    ZQCOW2_FAULTS_KEEP_ALL,
    ZQCOW2_FAULTS_WHOLE, /* each change survives whole or is lost */
    /*
     * Each aligned unit of 512 or 4096 bytes of a change survives or is lost. Some changes survive
     * or are lost as a whole; a truncate always does. A unit is never smaller than io_align and
     * atomic_write of the inner backend. It is larger if a change would have more than 65536 units.
     */
    ZQCOW2_FAULTS_TORN_512,
    ZQCOW2_FAULTS_TORN_4096,
    /* Added to one of the others: the changes that survive are applied in a shuffled order. */
    ZQCOW2_FAULTS_REORDER = 1 << 8
};

/*
 * Turns power off. The held changes that survive are applied to the inner backend, which is then
 * flushed; the others are dropped. From then on every call of the backend returns -EIO, except lock
 * and invalidate.
 * how: zqcow2_faults_how; seed determines all choices. -EINVAL: unknown bits in how. -EIO: power is
 * already off. Any other error is the first that the inner backend returned; power is off then.
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
    uint64_t count;          /* the maximum number of requests that are hit; 0: no limit */
    uint64_t offset, length; /* bytes of the backend; length 0: to the end. Flushes and truncates
                                touch every range. */
    uint64_t seed;           /* determines the delays */
    uint32_t kinds;          /* 1u << zqcow2_io_kind, or'ed */
    int error;               /* what the call returns: -4095 .. -1; 0: the request does not fail */
    uint32_t delay_min, delay_max; /* how long the thread sleeps first, in microseconds: uniformly
                                      distributed over this range. At most one minute. */
};
#define ZQCOW2_FAULTS_RULE_INIT \
    { \
        sizeof(struct zqcow2_faults_rule), 1, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/* Adds a copy of the rule. The log numbers rules from 1. Errors: -EINVAL, -E2BIG, -ENOMEM. */
ZQCOW2_API int zqcow2_faults_add_rule(struct zqcow2_faults *f,
                                      const struct zqcow2_faults_rule *rule);
/* Removes all rules. */
ZQCOW2_API void zqcow2_faults_clear_rules(struct zqcow2_faults *f);

#ifdef __cplusplus
}
#endif
#endif
