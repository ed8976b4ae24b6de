/* SPDX-License-Identifier: MIT */
/*
 * Metadata in slices: L2 tables and refcount blocks, cut into pieces of at most 4 KiB.
 *
 * A slice is clean, dirty (changed since the last capture), in the running round (written or to
 * be written by it), or both of the latter. From the capture until its write has completed it is
 * frozen: it must not change, so that every stage writes the block as it was captured
 * (R-rules of DESIGN.md). It is clean only after its write and the barrier behind it.
 *
 * Everything here runs under the image's mutex. A gather that cannot continue is parked: its waiter
 * is linked into a list here and later moved to the ready list. The gather token decides which one
 * makes progress (E2 of DESIGN.md).
 */
#ifndef ZQ_CACHE_CACHE_H
#define ZQ_CACHE_CACHE_H

#include "base/wait.h"
#include "device/io.h"

#define ZQ_MAX_PINS    3u
#define ZQ_MAX_DIRTIED 2u /* by one call of zq_cache_writable() */
#define ZQ_MIN_SLICES  6u /* the pins of one gather, a slice that is never dirtied, and slack */
/* What may be reserved, if the cache is smaller. */
#define ZQ_RESERVE_BYTES (1u << 20)

enum zq_slice_kind { ZQ_SLICE_REFS, ZQ_SLICE_L2, ZQ_SLICE_KINDS };

struct zq_slice {
    struct zq_list link;    /* lru, dirty[kind] or round[kind] of the cache */
    struct zq_slice *chain; /* hash */
    uint64_t host;          /* offset in the file */
    uint8_t *data;          /* slice_bytes of the file, in its byte order */
    uint32_t pins;          /* gathers that hold it; it is not evicted while there are any */
    uint32_t judged;        /* the map's own: 0 when the content is new */
    uint8_t kind;
    bool loading, dirty, in_round, frozen, writing;
    bool forgotten; /* no look-up finds it any more; its load or its pins are not over yet */
    struct zq_list waiters; /* for the load */
    struct zq_cache *cache;
    struct zq_io io;
};

#define ZQ_MAX_BLANK 512u /* slices of 4 KiB in the largest cluster */

/* A part of a table that is zeros in the file, and which of its slices were never loaded. */
struct zq_blank {
    uint64_t host;
    uint32_t nr; /* slices */
    uint64_t untouched[ZQ_MAX_BLANK / 64];
};

/*
 * What an operation holds from the first pass of a step's gather to its release. The one with the
 * token keeps its pins while parked, and pins what is being loaded for it.
 */
struct zq_gather {
    struct zq_waiter wait;
    struct zq_slice *pin[ZQ_MAX_PINS];
    unsigned npins, stale;  /* stale: a bit for each pin of an earlier pass not met again yet */
    unsigned loads;         /* asked for without the token */
    bool starved;           /* has the token, and waits for a slot or for room for dirt */
    bool patient;           /* waits for space that others have given up, before it fails for it */
    struct zq_cache *token; /* the cache whose token it has, or NULL: at most one */
    uint32_t reserved;      /* clean slices that it may make dirty: kept until it is given back */
};

struct zq_cache {
    struct zq_iox *x;
    struct zq_list *ready; /* where woken waiters go */
    uint32_t slice_bytes, max_slices, nr_slices, nr_dirty, hash_mask;
    uint64_t hits, loads;    /* look-ups that found what they asked for; reads of the file */
    struct zq_slice **hash;  /* by host; hash_mask + 1 buckets */
    struct zq_gather *token; /* the one that is sure to make progress, or NULL */
    struct zq_list spare;    /* slots without content: ZQ_MIN_SLICES are made at open */
    struct zq_list lru;      /* clean, oldest first; pinned ones too */
    struct zq_list dirty[ZQ_SLICE_KINDS], round[ZQ_SLICE_KINDS];
    struct zq_blank blank[ZQ_SLICE_KINDS];
    uint32_t reserved;              /* by all; beside nr_dirty */
    struct zq_gather *claim;        /* the one that reserves next, or NULL */
    struct zq_list claim_waiters;   /* to reserve, in turn */
    struct zq_list reserve_waiters; /* the claim's holder, for the reserve of another */
    struct zq_list token_waiters;   /* for the token, in turn */
    struct zq_list slot_waiters;    /* the token's holder, for the end of a load */
    struct zq_list room_waiters;    /* the token's holder, for fewer dirty slices: a round */
    struct zq_list frozen_waiters;  /* for anything frozen by the round */
    bool want_round;                /* a waiter needs a round */
};

int zq_cache_init(struct zq_cache *c, struct zq_iox *x, struct zq_list *ready, uint32_t slice_bytes,
                  uint64_t cache_bytes);
void zq_cache_fini(struct zq_cache *c);

/*
 * The valid slice that holds `host`, or NULL. It counts as used, but is not pinned: for a look
 * within one hold of the mutex.
 */
struct zq_slice *zq_cache_peek(struct zq_cache *c, uint64_t host);
/*
 * Pins it for g: 0 or ZQ_WAIT. host is slice-aligned. Never fails for memory: without it there are
 * still the slots made at open, to wait for. A failed load shows as g->wait.rc.
 */
int zq_cache_pin(struct zq_cache *c, struct zq_gather *g, uint64_t host, enum zq_slice_kind kind,
                 struct zq_slice **out);
/* The operation enters again from its top: it may need other slices this time. */
static inline void zq_cache_reenter(struct zq_gather *g)
{
    g->stale = (1u << g->npins) - 1;
    g->starved = false;
}
/* Lets go of one pin. */
void zq_cache_unpin(struct zq_cache *c, struct zq_gather *g, struct zq_slice *s);
/*
 * Lets go of pins and token: when a step that need not be done again is done, before the operation
 * waits for others or for its own I/O, and when it gives up.
 */
void zq_cache_release(struct zq_cache *c, struct zq_gather *g);
static inline bool zq_cache_holds_nothing(const struct zq_gather *g)
{
    return !g->npins && !g->token;
}
/* May these (b NULL: one) be changed now? 0 or ZQ_WAIT. */
int zq_cache_writable(struct zq_cache *c, struct zq_gather *g, struct zq_slice *a,
                      struct zq_slice *b);
void zq_cache_dirty(struct zq_cache *c, struct zq_slice *s);
/*
 * Room for g to make so many clean slices dirty, each once, whatever becomes of rounds meanwhile;
 * as many as the cache can ever have, if that is less. ZQ_WAIT, 0, -ENOMEM; as wait.rc the error
 * of the round that had to make room. For this the cache may become larger than its size.
 */
int zq_cache_reserve(struct zq_cache *c, struct zq_gather *g, uint32_t slices);
/* Gives back what is left of it. Also where nothing is reserved, or it was given up. */
void zq_cache_unreserve(struct zq_cache *c, struct zq_gather *g);
/*
 * These slices of a new table were written as zeros and never loaded: the first load of each reads
 * nothing. One range for each kind; a new one takes its place.
 */
void zq_cache_blank(struct zq_cache *c, enum zq_slice_kind kind, uint64_t host, uint64_t len);
/* A table was given up: from now on no look-up finds its slices. None is dirty. */
void zq_cache_forget(struct zq_cache *c, uint64_t host, uint64_t len);
/* The file was changed past the cache: nothing that it knew holds. All is clean, none is pinned. */
void zq_cache_forget_all(struct zq_cache *c);
/*
 * Parks g on a list of the caller's, by the token rule: for what the image's own I/O brings about,
 * whatever other operations do. Before a wait for an operation, release. Always ZQ_WAIT.
 */
int zq_cache_park(struct zq_cache *c, struct zq_gather *g, struct zq_list *on);

/* ---- the round's side ---- */

bool zq_cache_has_dirty(const struct zq_cache *c);
/* Everything dirty becomes part of the round, frozen. */
void zq_cache_capture(struct zq_cache *c);
/* The next frozen slice of a kind that is not being written, or NULL. Marks it as being written. */
struct zq_slice *zq_cache_next_frozen(struct zq_cache *c, enum zq_slice_kind kind);
/* Its write has completed. */
void zq_cache_thaw(struct zq_cache *c, struct zq_slice *s);
/* The round's last barrier has completed: what was not changed since is clean. */
void zq_cache_round_done(struct zq_cache *c);
/*
 * The round stopped for lack of space (rc): all that it took is dirty again, as it is now. Waiters
 * for room among the dirty slices get the error: woken without it, they would start rounds
 * endlessly.
 */
void zq_cache_round_stop(struct zq_cache *c, int rc);
/* Gives back the slots beyond its size that are not needed. */
void zq_cache_shrink(struct zq_cache *c);
/* The image is dead: all waiters wake up and check again. */
void zq_cache_wake_all(struct zq_cache *c);

#endif
