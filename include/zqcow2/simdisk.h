/* SPDX-License-Identifier: MIT */
/*
 * A simulated disk: an in-memory backend that, on request, loses power, makes I/O fail and reorders
 * it. The same seed and the same calls give the same behaviour. It is meant for tests of this
 * library and of any program that stores data in an image. See zqcow2_simdisk(3).
 *
 * Position     The disk counts events: every write, zero, discard, truncate and flush counts as one
 *              event when it begins and as another when it ends. A failed flush also counts one
 *              event for each change that it loses. Position p is the moment after p events.
 * Change       A write, zero, discard or truncate.
 * Pending      A change is pending from its beginning until a flush that covers it succeeds, or
 *              until a failed flush loses it. A flush covers the changes that ended before the
 *              flush began. A power loss may keep, lose or tear a pending change.
 * State        One possible outcome of a power loss: a choice of which units of each pending
 *              change survive. A unit is atomic_write bytes.
 * Cut          A view of the disk at one position, from which states are made.
 *
 * Free the cuts and close the backends of a disk before freeing the disk. Several threads may use a
 * disk concurrently; a cut belongs to one thread.
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
    ZQCOW2_SIMDISK_ASYNC = 1 << 0,     /* submit and poll; the seed orders completions */
    ZQCOW2_SIMDISK_RECORD = 1 << 1,    /* log from the start, so that cuts can be made at
                                          any position */
    ZQCOW2_SIMDISK_NO_ZERO = 1 << 2,   /* zero() returns -EOPNOTSUPP */
    ZQCOW2_SIMDISK_NO_DISCARD = 1 << 3 /* discard() returns -EOPNOTSUPP */
};

/* What a discarded range reads as. */
enum zqcow2_simdisk_discard {
    ZQCOW2_SIMDISK_DISCARD_ZEROS,
    ZQCOW2_SIMDISK_DISCARD_KEEPS,
    ZQCOW2_SIMDISK_DISCARD_SCRAMBLES /* seeded noise: exposes reliance on discarded bytes */
};

/* For atomic_write: a request survives whole or not at all. */
#define ZQCOW2_SIMDISK_ATOMIC UINT32_MAX

struct zqcow2_simdisk_options {
    size_t size;
    uint64_t seed;
    uint64_t length;       /* initial size in bytes, all zeros */
    uint64_t max_length;   /* changes beyond this size fail with -ENOSPC; 0: no limit */
    uint32_t flags;        /* zqcow2_simdisk_flag */
    uint32_t discard;      /* zqcow2_simdisk_discard */
    uint32_t atomic_write; /* unit of tearing: a power of two >= 512, or
                              ZQCOW2_SIMDISK_ATOMIC; 0: 512 */
    uint32_t io_align, buf_align, max_transfer; /* as in struct zqcow2_limits */
    const struct zqcow2_hooks *hooks;
    uint32_t max_iov; /* as in struct zqcow2_limits */
    uint32_t reserved;
};
#define ZQCOW2_SIMDISK_OPTIONS_INIT \
    { \
        sizeof(struct zqcow2_simdisk_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, 0, 0 \
    }

/* opt NULL: defaults. */
ZQCOW2_API int zqcow2_simdisk_new(const struct zqcow2_simdisk_options *opt,
                                  struct zqcow2_simdisk **disk);
ZQCOW2_API void zqcow2_simdisk_free(struct zqcow2_simdisk *disk); /* NULL is allowed */
/* A backend on the disk. Closing it does not change the disk. */
ZQCOW2_API int zqcow2_simdisk_backend(struct zqcow2_simdisk *disk, struct zqcow2_backend **be);
/*
 * Makes an independent disk with the content that reads return now. All of that content is durable.
 * The clone has the same options, but no armed fault and no log.
 */
ZQCOW2_API int zqcow2_simdisk_clone(struct zqcow2_simdisk *disk, struct zqcow2_simdisk **clone);
/* Seeds later random choices: completion order, what failed flushes lose, seeded states. */
ZQCOW2_API void zqcow2_simdisk_set_seed(struct zqcow2_simdisk *disk, uint64_t seed);
/*
 * Direct access to the bytes, not through a backend. An import is durable at once and is not an
 * event; an export returns the bytes that a read would return.
 */
ZQCOW2_API int zqcow2_simdisk_import(struct zqcow2_simdisk *disk, const void *buf, size_t len,
                                     uint64_t off);
ZQCOW2_API int zqcow2_simdisk_export(struct zqcow2_simdisk *disk, void *buf, size_t len,
                                     uint64_t off);
ZQCOW2_API uint64_t zqcow2_simdisk_length(struct zqcow2_simdisk *disk);
/* A hash of the durable content. It depends on nothing else. */
ZQCOW2_API uint64_t zqcow2_simdisk_hash(struct zqcow2_simdisk *disk);

struct zqcow2_simdisk_counters {
    size_t size;
    uint64_t calls[8];  /* by zqcow2_io_kind, including failed calls */
    uint64_t bytes[8];  /* of READ, WRITE, ZERO, DISCARD */
    uint64_t position;  /* events so far */
    uint64_t in_flight; /* accepted and not yet completed */
    uint64_t max_in_flight;
    uint64_t faults; /* calls that failed because of an injected fault */
    uint64_t misuse; /* violations of the backend contract: overlapping writes in flight (also
                        those that the caller of the library issues outside sequential zones,
                        which the contract allows), requests that exceed the limits, empty
                        requests */
};
#define ZQCOW2_SIMDISK_COUNTERS_INIT \
    { \
        sizeof(struct zqcow2_simdisk_counters), {0}, {0}, 0, 0, 0, 0, 0 \
    }

ZQCOW2_API int zqcow2_simdisk_get_counters(struct zqcow2_simdisk *disk,
                                           struct zqcow2_simdisk_counters *out);

/* ---- faults ---- */

enum zqcow2_simdisk_fault_flag {
    ZQCOW2_SIMDISK_FOREVER = 1 << 0,   /* the nth and every later call of the fault's kinds
                                          fail */
    ZQCOW2_SIMDISK_SHORT = 1 << 1,     /* the first half of a failing write is written */
    ZQCOW2_SIMDISK_AT_SUBMIT = 1 << 2, /* asynchronous: submit() itself fails */
    ZQCOW2_SIMDISK_LANDS = 1 << 3      /* all of a failing write is written */
};

/*
 * When a flush fails, part of what it covers is permanently lost; the seed chooses which part. The
 * rest stays pending. As with a page cache, reads still return the lost part until the backend's
 * invalidate() is called.
 */
struct zqcow2_simdisk_fault {
    size_t size;
    uint64_t nth;   /* 1: the next call of these kinds */
    uint32_t kinds; /* 1u << zqcow2_io_kind, or'ed */
    uint32_t flags; /* zqcow2_simdisk_fault_flag */
    int error;      /* what the call returns: -4095 .. -1 */
    int reserved;
};
#define ZQCOW2_SIMDISK_FAULT_INIT \
    { \
        sizeof(struct zqcow2_simdisk_fault), 1, 0, 0, 0, 0 \
    }

/* Arms one fault. It replaces the fault that was armed, if any; NULL only disarms that one. */
ZQCOW2_API int zqcow2_simdisk_set_fault(struct zqcow2_simdisk *disk,
                                        const struct zqcow2_simdisk_fault *fault);
/*
 * Turns power off when the disk reaches `position`, or at once if the disk is past it. From
 * then on every call to the disk's backends fails with -EIO. A cut at the position at which power
 * went off gives access to the states that may have survived. UINT64_MAX turns power on again.
 */
ZQCOW2_API void zqcow2_simdisk_power_off(struct zqcow2_simdisk *disk, uint64_t position);

/* ---- the log and its cuts ---- */

ZQCOW2_API uint64_t zqcow2_simdisk_position(struct zqcow2_simdisk *disk);
/*
 * Discards the log and begins a new one at the current position. -EBUSY: a cut of the old log
 * exists.
 */
ZQCOW2_API int zqcow2_simdisk_record(struct zqcow2_simdisk *disk);

struct zqcow2_simdisk_op { /* a change or a flush in the log */
    size_t size;
    uint64_t offset, length; /* bytes that may reach the disk; TRUNCATE: offset is the new
                                length */
    uint64_t begun, ended;   /* positions of its events; ended UINT64_MAX: still running */
    uint32_t kind;           /* zqcow2_io_kind */
    uint32_t units;          /* number of units into which a power loss may tear it */
    int result;              /* valid once it has ended */
    int reserved;
};
#define ZQCOW2_SIMDISK_OP_INIT \
    { \
        sizeof(struct zqcow2_simdisk_op), 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/*
 * Returns the change or flush to which the event after `position` belongs. -ENOENT: not in the log.
 */
ZQCOW2_API int zqcow2_simdisk_event(struct zqcow2_simdisk *disk, uint64_t position,
                                    struct zqcow2_simdisk_op *op);

/*
 * Makes a cut at the first position of the log. Without a log, a cut can only be at the current
 * position.
 */
ZQCOW2_API int zqcow2_simdisk_cut_new(struct zqcow2_simdisk *disk, struct zqcow2_simdisk_cut **cut);
ZQCOW2_API void zqcow2_simdisk_cut_free(struct zqcow2_simdisk_cut *cut); /* NULL is allowed */
/*
 * Moves the cut. Moving forwards replays the events in between; moving backwards replays the log
 * from its start. -ENOENT: position is not in the log.
 */
ZQCOW2_API int zqcow2_simdisk_cut_seek(struct zqcow2_simdisk_cut *cut, uint64_t position);
ZQCOW2_API uint64_t zqcow2_simdisk_cut_position(const struct zqcow2_simdisk_cut *cut);
/*
 * cut_pending() returns the number of pending changes at the cut. cut_op() describes one of them:
 * they are numbered from 0 in the order in which they began. -EINVAL: there is no change `i`.
 */
ZQCOW2_API uint32_t zqcow2_simdisk_cut_pending(const struct zqcow2_simdisk_cut *cut);
ZQCOW2_API int zqcow2_simdisk_cut_op(const struct zqcow2_simdisk_cut *cut, uint32_t i,
                                     struct zqcow2_simdisk_op *op);
/*
 * Returns the number of states that the disk proposes at the cut. In state 0, all pending changes
 * are lost. The states are these:
 *   - Whole changes survive or are lost. With at most 10 pending changes, every subset survives in
 *     some state. With more, there is one state for each of these sets of survivors: no change; all
 *     changes; each prefix; all but one, for each change; each change alone; all but two, for each
 *     pair (if at most 32 are pending); and 64 seeded subsets.
 *   - One change is torn. For each change there are states in which it keeps only the units before
 *     a boundary (one for each boundary, or 16 if it has more than 16 units), and states in which
 *     it keeps a seeded subset of its units. Each of these occurs three times: with all other
 *     changes lost, with only the earlier ones kept, and with all of them kept.
 *   - All changes are torn at once: each keeps a seeded subset of its units.
 */
ZQCOW2_API uint64_t zqcow2_simdisk_cut_states(const struct zqcow2_simdisk_cut *cut);
/*
 * Makes an independent disk that is in state k after a power loss at the cut. Its power is on, and
 * it has no log. -EINVAL: there is no state k.
 */
ZQCOW2_API int zqcow2_simdisk_cut_image(const struct zqcow2_simdisk_cut *cut, uint64_t k,
                                        struct zqcow2_simdisk **image);
/*
 * Like zqcow2_simdisk_cut_image(), but keep() chooses: it returns nonzero if the given unit of the
 * given pending change survives. order 0: the surviving changes are applied in the order in which
 * they began. Any other value of order is a seed by which they are shuffled.
 */
ZQCOW2_API int zqcow2_simdisk_cut_choose(const struct zqcow2_simdisk_cut *cut,
                                         int (*keep)(void *arg, uint32_t change, uint32_t unit),
                                         void *arg, uint64_t order, struct zqcow2_simdisk **image);
/*
 * Makes the disk that remains if the program is killed at the cut while power stays on. Reads
 * return every change that has ended; changes that no flush covers stay pending. Changes that have
 * begun but not ended are absent. The disk has no log; zqcow2_simdisk_record() begins one.
 */
ZQCOW2_API int zqcow2_simdisk_cut_kill(const struct zqcow2_simdisk_cut *cut,
                                       struct zqcow2_simdisk **disk);

#ifdef __cplusplus
}
#endif
#endif
