/* SPDX-License-Identifier: MIT */
/*
 * A simulated disk: a backend in memory that loses power, fails and reorders on demand, and is
 * deterministic by seed. For tests of this library and of any program that stores data in an
 * image. See zqcow2_simdisk(3).
 *
 * Position     The disk counts events: every write, zero, discard, truncate and flush is one event
 *              when it begins and one when it ends. Position p is the moment after p events.
 * Pending      What a power loss at a position may keep, lose or tear: changes that had begun and
 *              that no flush covers. A flush covers what had ended before the flush began.
 * State        One possible outcome of a power loss: a choice of the surviving units of each
 *              pending change. A unit is atomic_write bytes.
 *
 * A cut looks at one position of a disk. A disk outlives its backends and cuts. Calls on one disk
 * may come from several threads; a cut belongs to one thread.
 */
#ifndef ZQCOW2_SIMDISK_H
#define ZQCOW2_SIMDISK_H

#include <zqcow2/backend.h>

#ifdef __cplusplus
extern "C" {
#endif

struct zqcow2_simdisk;
struct zqcow2_simdisk_cut;

enum zqcow2_simdisk_flag {
    ZQCOW2_SIMDISK_ASYNC = 1 << 0,     /* submit and poll; completions in a seeded order */
    ZQCOW2_SIMDISK_RECORD = 1 << 1,    /* keep the log from the start, to cut at any position */
    ZQCOW2_SIMDISK_NO_ZERO = 1 << 2,   /* zero() answers -EOPNOTSUPP */
    ZQCOW2_SIMDISK_NO_DISCARD = 1 << 3 /* discard() answers -EOPNOTSUPP */
};

enum zqcow2_simdisk_discard { /* what a discarded range reads as */
    ZQCOW2_SIMDISK_DISCARD_ZEROS,
    ZQCOW2_SIMDISK_DISCARD_KEEPS,
    ZQCOW2_SIMDISK_DISCARD_SCRAMBLES /* seeded noise: shows who relies on discarded bytes */
};

#define ZQCOW2_SIMDISK_ATOMIC UINT32_MAX /* atomic_write: a request survives whole or not at all */

struct zqcow2_simdisk_options {
    size_t size;
    uint64_t seed;
    uint64_t length;       /* bytes of zeros at first */
    uint64_t max_length;   /* a change that would make the disk longer: -ENOSPC; 0: no limit */
    uint32_t flags;        /* zqcow2_simdisk_flag */
    uint32_t discard;      /* zqcow2_simdisk_discard */
    uint32_t atomic_write; /* unit of tearing: multiple of 512; 0: 512; or ZQCOW2_SIMDISK_ATOMIC */
    uint32_t io_align, buf_align, max_transfer; /* as in struct zqcow2_limits */
    const struct zqcow2_hooks *hooks;
};
#define ZQCOW2_SIMDISK_OPTIONS_INIT \
    { sizeof(struct zqcow2_simdisk_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL }

/* opt NULL: defaults. */
ZQCOW2_API int zqcow2_simdisk_new(const struct zqcow2_simdisk_options *opt,
                                  struct zqcow2_simdisk **disk);
ZQCOW2_API void zqcow2_simdisk_free(struct zqcow2_simdisk *disk); /* NULL is allowed */
/* A backend on the disk; closing it leaves the disk as it is. */
ZQCOW2_API int zqcow2_simdisk_backend(struct zqcow2_simdisk *disk, struct zqcow2_backend **be);
/* A disk of its own with what reads see now, all of it durable; same options, no faults, no log. */
ZQCOW2_API int zqcow2_simdisk_clone(struct zqcow2_simdisk *disk, struct zqcow2_simdisk **clone);
/* Of what is drawn from here on: order of completions, what failed flushes lose, seeded states. */
ZQCOW2_API void zqcow2_simdisk_set_seed(struct zqcow2_simdisk *disk, uint64_t seed);
/* Bytes past the backend: import is durable at once and no event; export gives what reads see. */
ZQCOW2_API int zqcow2_simdisk_import(struct zqcow2_simdisk *disk, const void *buf, size_t len,
                                     uint64_t off);
ZQCOW2_API int zqcow2_simdisk_export(struct zqcow2_simdisk *disk, void *buf, size_t len,
                                     uint64_t off);
ZQCOW2_API uint64_t zqcow2_simdisk_length(struct zqcow2_simdisk *disk);
/* Of the durable content: equal content gives equal values, whatever way it came about. */
ZQCOW2_API uint64_t zqcow2_simdisk_hash(struct zqcow2_simdisk *disk);

struct zqcow2_simdisk_counters {
    size_t size;
    uint64_t calls[8];   /* by zqcow2_io_kind, failed ones included */
    uint64_t bytes[8];   /* of READ, WRITE, ZERO, DISCARD */
    uint64_t position;   /* events so far */
    uint64_t in_flight;  /* accepted and not yet completed */
    uint64_t max_in_flight;
    uint64_t faults;     /* calls that an injected fault made fail */
    uint64_t misuse;     /* breaches of the backend contract: overlapping writes in flight,
                            misaligned requests */
};
#define ZQCOW2_SIMDISK_COUNTERS_INIT \
    { sizeof(struct zqcow2_simdisk_counters), {0}, {0}, 0, 0, 0, 0, 0 }

ZQCOW2_API int zqcow2_simdisk_get_counters(struct zqcow2_simdisk *disk,
                                           struct zqcow2_simdisk_counters *out);

/* ---- faults ---- */

enum zqcow2_simdisk_fault_flag {
    ZQCOW2_SIMDISK_FOREVER = 1 << 0,  /* this call and every later one of these kinds */
    ZQCOW2_SIMDISK_SHORT = 1 << 1,    /* a failing write leaves its first half */
    ZQCOW2_SIMDISK_AT_SUBMIT = 1 << 2, /* asynchronous: submit() itself fails */
    ZQCOW2_SIMDISK_LANDS = 1 << 3     /* a failing write leaves all of itself */
};

/*
 * A flush that fails loses a seeded part of what it covered for good, yet reads keep showing all
 * of it until the backend's invalidate(), as a page cache does.
 */
struct zqcow2_simdisk_fault {
    size_t size;
    uint64_t nth;   /* 1: the next call of these kinds */
    uint32_t kinds; /* 1u << zqcow2_io_kind, or'ed */
    uint32_t flags; /* zqcow2_simdisk_fault_flag */
    int error;      /* what the call gives: negative */
    int reserved;
};
#define ZQCOW2_SIMDISK_FAULT_INIT { sizeof(struct zqcow2_simdisk_fault), 1, 0, 0, 0, 0 }

/* One fault is armed at a time; NULL disarms. */
ZQCOW2_API int zqcow2_simdisk_set_fault(struct zqcow2_simdisk *disk,
                                        const struct zqcow2_simdisk_fault *fault);
/*
 * Power goes when the disk reaches `position` (the present one or earlier: now): from there every
 * call fails with -EIO. UINT64_MAX: power is on. What may have survived: zqcow2_simdisk_cut_new().
 */
ZQCOW2_API void zqcow2_simdisk_power_off(struct zqcow2_simdisk *disk, uint64_t position);

/* ---- the log and its cuts ---- */

ZQCOW2_API uint64_t zqcow2_simdisk_position(struct zqcow2_simdisk *disk);
/* Begins a new log at the present position and forgets the old one. Not while a cut exists. */
ZQCOW2_API int zqcow2_simdisk_record(struct zqcow2_simdisk *disk);

struct zqcow2_simdisk_op { /* a logged change, or an event of one */
    size_t size;
    uint64_t offset, length; /* of bytes that may reach the disk; TRUNCATE: offset: the length */
    uint64_t begun, ended;   /* positions of its events; ended UINT64_MAX: not yet */
    uint32_t kind;           /* zqcow2_io_kind */
    uint32_t units;          /* into which a crash may tear it */
    int result;              /* once ended */
    int reserved;
};
#define ZQCOW2_SIMDISK_OP_INIT { sizeof(struct zqcow2_simdisk_op), 0, 0, 0, 0, 0, 0, 0, 0 }

/* The change that the event after `position` belongs to. -ENOENT: not in the log. */
ZQCOW2_API int zqcow2_simdisk_event(struct zqcow2_simdisk *disk, uint64_t position,
                                    struct zqcow2_simdisk_op *op);

/* At the log's first position; on a disk without a log: at the present one, the only one. */
ZQCOW2_API int zqcow2_simdisk_cut_new(struct zqcow2_simdisk *disk,
                                      struct zqcow2_simdisk_cut **cut);
ZQCOW2_API void zqcow2_simdisk_cut_free(struct zqcow2_simdisk_cut *cut); /* NULL is allowed */
/* Forwards costs the events between; backwards starts again. -ENOENT: not in the log. */
ZQCOW2_API int zqcow2_simdisk_cut_seek(struct zqcow2_simdisk_cut *cut, uint64_t position);
ZQCOW2_API uint64_t zqcow2_simdisk_cut_position(const struct zqcow2_simdisk_cut *cut);
/* Pending changes, in the order in which they began. */
ZQCOW2_API uint32_t zqcow2_simdisk_cut_pending(const struct zqcow2_simdisk_cut *cut);
ZQCOW2_API int zqcow2_simdisk_cut_op(const struct zqcow2_simdisk_cut *cut, uint32_t i,
                                     struct zqcow2_simdisk_op *op);
/*
 * How many states the built-in choice has here: of up to 10 pending changes every subset, of more
 * none, all, every prefix, omission and inclusion of one, omission of two (up to 32), 64 seeded
 * subsets; then torn ones: of each change every cut up to 16 units and seeded masks, with the
 * others lost, earlier ones kept, all kept; then everything torn by seed. State 0 lost everything.
 */
ZQCOW2_API uint64_t zqcow2_simdisk_cut_states(const struct zqcow2_simdisk_cut *cut);
/* The disk after a power loss here, in state k: a disk of its own, without a log, with power. */
ZQCOW2_API int zqcow2_simdisk_cut_image(const struct zqcow2_simdisk_cut *cut, uint64_t k,
                                        struct zqcow2_simdisk **image);
/*
 * The caller's own choice: keep() says whether a unit of a pending change survives. order 0:
 * surviving changes land in the order in which they began, else in one shuffled by that seed.
 */
ZQCOW2_API int zqcow2_simdisk_cut_choose(const struct zqcow2_simdisk_cut *cut,
                                         int (*keep)(void *arg, uint32_t change, uint32_t unit),
                                         void *arg, uint64_t order,
                                         struct zqcow2_simdisk **image);
/*
 * The disk after a program was killed here while the power stayed on: reads see every change that
 * had ended, and what was pending of those still is. Changes that had only begun are not there.
 * It has no log; zqcow2_simdisk_record() begins one.
 */
ZQCOW2_API int zqcow2_simdisk_cut_kill(const struct zqcow2_simdisk_cut *cut,
                                       struct zqcow2_simdisk **disk);

#ifdef __cplusplus
}
#endif
#endif
