/* SPDX-License-Identifier: MIT */
/* Everything an image is, by value, and what the files of the engine offer one another. */
#ifndef ZQ_ENGINE_CORE_H
#define ZQ_ENGINE_CORE_H

#include <pthread.h>
#include "engine/op.h"
#include "format/header.h"

#define ZQ_ROUND_IOS 16u
#define ZQ_ROUND_BUF 4096u

enum zq_stage {
    ZQ_ST_IDLE,
    ZQ_ST_MARK,  /* the in-use mark, before the first allocation (R12) */
    ZQ_ST_META,  /* refcounts raised, pointers back to start; with it all data so far */
    ZQ_ST_TABLE, /* refcount table entries of new blocks, or the switch to a grown table */
    ZQ_ST_L2,    /* L1, and entries of L2 tables */
    ZQ_ST_FULL,  /* pointers that become FULL, if I7 wants them first */
    ZQ_ST_WP,    /* all other write pointers */
    ZQ_ST_END
};

struct zq_round_io {
    struct zq_io io;
    struct zq_round *round;
    struct zq_slice *slice; /* being written, or NULL: buf is */
    uint8_t *buf;
    bool busy;
};

/* One pass of metadata to the disk, by stages with a barrier between: flush.c, DESIGN.md. */
struct zq_round {
    struct zq_core *core;
    enum zq_stage stage;
    bool wanted, wrote, barrier, full_first;
    bool fatal;                  /* nobody knows what is on disk now (I12) */
    int rc;                      /* < 0: it stops when what is in flight has drained */
    uint64_t done;               /* the last that ended well; the last begun: alloc.snapshots */
    unsigned in_flight;
    uint64_t cursor;             /* within the stage */
    uint32_t sector;             /* of the write-pointer table */
    struct zq_list waiters;
    struct zq_io flush;
    struct zq_round_io io[ZQ_ROUND_IOS];
    uint8_t *bufs;
};

/* How somebody above is told to run the loop when nobody does (E4). ring: under the mutex. */
struct zq_doorbell {
    struct zq_list link;
    void (*ring)(struct zq_doorbell *bell);
    uint32_t pending; /* his requests in flight: with some, he also hears the backend by himself */
    bool audible;     /* he has a descriptor to wait on */
};

struct zq_core {
    /* fixed after open */
    struct zqcow2_hooks hooks;
    struct zqcow2_backend *be;
    bool borrowed, writable, zoned, lazy;
    struct zq_header hdr;
    uint64_t size, extent_bytes;
    uint64_t seq_start;          /* where sequential zones begin; size where there are none */
    uint32_t cluster_bits, info_flags;

    pthread_mutex_t mutex;       /* guards all below */
    pthread_cond_t cond;         /* threads that wait for progress of others */
    unsigned runners, sleepers;  /* threads in the engine; threads in cond */
    unsigned waiters;            /* threads in a blocking call: they run the loop till they leave */
    unsigned away;               /* runners whom a blocking call of an asynchronous backend holds */
    bool polling, wake_poller;
    pthread_t poller;
    unsigned nr_ops, nr_drains;  /* begun and not finished; drains among them */
    struct zq_list drain_waiters;
    struct zq_list doorbells;    /* of queues */
    bool dead, death_logged;
    int dead_rc;
    bool sealed;                 /* takes no (more) changes: dead, corrupt, or for reading */
    bool corrupt_marked, corrupt_logged;
    uint8_t sector0[ZQ_SECTOR];  /* the header's first sector, as on disk */
    bool marked, want_mark;      /* the mark is durable, or not needed; somebody waits for it */

    struct zq_list ready;        /* operations to step */
    struct zq_iox x;
    struct zq_cache cache;
    struct zq_alloc alloc;
    struct zq_map map;
    struct zq_zones zones;
    struct zq_round round;
    struct zq_list owners;       /* operations whose guest clusters belong to them (R14) */
    struct zq_list owner_waiters;
    struct zq_op janitor;        /* gives clusters and space back */
    bool janitor_runs, leaked;   /* leaked: clusters could not be given back */
};

/* ---- engine.c: the loop ---- */

void zq_core_lock(struct zq_core *c);
void zq_core_unlock(struct zq_core *c);
int zq_core_init(struct zq_core *c);      /* hooks, be are set */
void zq_core_fini(struct zq_core *c);
/* Under the mutex, which it drops while it does I/O: works until there is nothing to do now. */
void zq_engine_run(struct zq_core *c);
/* Under the mutex: waits until others or the backend have made progress, at most timeout_ms. */
void zq_engine_wait(struct zq_core *c, int timeout_ms);
/* Sets what the long way starts from, but for step, and what gather and its users set first. */
void zq_op_reset(struct zq_core *c, struct zq_op *op);
/* Checks the request and lets the operation go. finish() follows sooner or later. */
void zq_op_begin(struct zq_core *c, struct zq_op *op);
/* Begins, works and waits until it is finished. */
int zq_op_run_blocking(struct zq_core *c, struct zq_op *op);
void zq_op_step(struct zq_op *op);
void zq_op_ready(struct zq_op *op);
/* Parks op until a round is done or another operation has got on: it holds nothing meanwhile. */
static inline int zq_op_park(struct zq_core *c, struct zq_op *op, struct zq_list *on)
{
    zq_cache_release(&c->cache, &op->g);
    zq_list_push(on, &op->g.wait.link);
    return ZQ_WAIT;
}
/* It has its result: no drain waits for it any more. */
static inline void zq_op_over(struct zq_core *c, struct zq_op *op)
{
    op->finished = true;
    c->nr_ops--;
    if (!zq_list_empty(&c->drain_waiters))
        zq_wake(&c->ready, &c->drain_waiters);
}
/* Does somebody wait, in a call, or with requests in flight on a descriptor? */
bool zq_engine_is_heard(const struct zq_core *c);
/* A thread leaves: the image's own I/O, which nobody waits for, needs somebody who hears of it. */
void zq_engine_hand_over(struct zq_core *c);
/* An operation has finished: threads that sleep or poll for it look again. */
void zq_engine_tell_others(struct zq_core *c);
/* What a write's I/O came to: a dead image acknowledges nothing more (R11). */
static inline int zq_acknowledged(const struct zq_core *c, int rc)
{
    return rc == 0 && c->dead ? ZQCOW2_EDEAD : rc;
}
/*
 * A write to a zone ended with rc. True: it has committed alone, and may be answered at once. Else
 * it goes on in order: who is ready may have committed before it, and is answered before it (K7).
 */
static inline bool zq_zone_commits_now(struct zq_core *c, struct zq_op *op, int rc)
{
    return rc == 0 && zq_list_empty(&c->ready) &&
           zq_zone_commit_first(&c->zones, op->zone, &op->r);
}
void zq_core_die(struct zq_core *c, int rc);

/* ---- direct.c: the short way ---- */

/*
 * False: not for this request; nothing has begun, and only op->zone and length are written.
 * start: finish() follows. run: over a blocking backend only; moves the bytes before it returns,
 * and is then finished, but for a write whose zone has others to commit first: that finishes by
 * finish().
 */
bool zq_direct_start(struct zq_core *c, struct zq_op *op);
bool zq_direct_run(struct zq_core *c, struct zq_op *op);

/* ---- transfer.c: a request's bytes to and from the host ---- */

void zq_transfer_begin(struct zq_op *op, uint32_t kind, uint64_t host, uint64_t len);
/* ZQ_WAIT while bytes move, then 0 or the error. */
int zq_transfer_step(struct zq_core *c, struct zq_op *op);
/* One io that is not of the request's bytes: ZQ_WAIT; op->rc tells. */
int zq_op_io(struct zq_core *c, struct zq_op *op, uint32_t kind, void *buf, uint64_t host,
             uint64_t len);
int zq_op_work(struct zq_core *c, struct zq_op *op, void (*work)(struct zq_io *io));
/* Copies from memory into the request's bytes at the cursor, and moves it on. */
void zq_iov_copy_out(struct zq_op *op, const uint8_t *from, uint64_t len);
void zq_iov_advance(struct zq_op *op, uint64_t len);

/* ---- admit.c: turns, room, durable resets ---- */

int zq_turn_take(struct zq_core *c, struct zq_op *op, uint32_t zone);
void zq_turn_leave(struct zq_core *c, struct zq_op *op);
/* ZQ_WAIT until the zone has no reservation and nothing else in its way. */
int zq_zone_wait_drained(struct zq_core *c, struct zq_op *op, uint32_t zone);
int zq_zone_wait_admissible(struct zq_core *c, struct zq_op *op, uint32_t zone);
/* Room for the verdict; waits for the victim of an implicit close to drain. */
int zq_zone_get_room(struct zq_core *c, struct zq_op *op, uint32_t zone,
                     const struct zq_verdict *v, uint32_t *victim);
void zq_zone_use_room(struct zq_core *c, struct zq_op *op, uint32_t victim);
void zq_closing_drop(struct zq_core *c, struct zq_op *op);
/* R2: nothing new before `start` is durable and the readers of the earlier life are gone. */
int zq_zone_wait_reset(struct zq_core *c, struct zq_op *op, uint32_t zone);
/* R12: nothing is allocated before the mark is durable. */
int zq_may_allocate(struct zq_core *c, struct zq_op *op);

/*
 * R14: from now on nobody else changes what the request's guest clusters map to, until it lets go
 * of them. Waits holding nothing.
 */
int zq_range_take(struct zq_core *c, struct zq_op *op);
void zq_range_leave(struct zq_core *c, struct zq_op *op);

/* ---- extend.c: what a write needs mapped ---- */

int zq_zone_map(struct zq_core *c, struct zq_op *op, uint64_t at, uint64_t len);

/* ---- fill.c: new clusters made whole ---- */

/*
 * Gathers and reserves new clusters for [guest, guest + bytes), cluster-aligned, to replace `old`;
 * bytes may come out smaller. The last of op->fills then; the caller sets head, tail and data.
 */
int zq_fill_prepare(struct zq_core *c, struct zq_op *op, uint64_t guest, uint64_t bytes,
                    const struct zq_extent *old);
/* Begins the first of op->fills. */
void zq_fill_start(struct zq_op *op);
/* Moves kept content and data_len of the request's own bytes, links. ZQ_WAIT, 0, error. */
int zq_fill_step(struct zq_core *c, struct zq_op *op);
/* Gives back what was prepared and not begun. */
void zq_fills_drop(struct zq_core *c, struct zq_op *op);
static inline struct zq_fill *zq_fill_last(struct zq_op *op)
{
    return zq_container(op->fills.prev, struct zq_fill, link);
}
int zq_packed_alloc(struct zq_core *c, struct zq_packed *p, uint64_t entry);
void zq_packed_free(struct zq_core *c, struct zq_packed *p);
int zq_packed_inflate(struct zq_core *c, const struct zq_packed *p);

/* ---- unmap.c ---- */

/* Takes all that zq_unmap of the same range will need. ZQ_WAIT, 0, error. */
int zq_unmap_prepare(struct zq_core *c, struct zq_op *op, uint64_t *at, uint64_t end);
/* Unmaps whole clusters of [*at, end), a slice at a time; *at tells how far. ZQ_WAIT, 0, error. */
int zq_unmap(struct zq_core *c, struct zq_op *op, uint64_t *at, uint64_t end);
void zq_unmap_drop(struct zq_core *c, struct zq_op *op);

/* ---- reclaim.c ---- */

void zq_janitor_kick(struct zq_core *c);
/* Flushes, unmaps what lies ahead, empties the quarantine, clears the mark. */
zq_step zq_step_shutdown;

/* ---- flush.c ---- */

/* Asks for a round whose snapshot is taken from now on, and parks until it is done; its error. */
int zq_round_wait(struct zq_core *c, struct zq_op *op);
bool zq_round_needed(const struct zq_core *c);
void zq_round_start(struct zq_core *c);
static inline bool zq_round_runs(const struct zq_core *c)
{
    return c->round.stage != ZQ_ST_IDLE;
}
/* FUA, or nothing more: the last step of an operation that changed something. */
int zq_step_fua(struct zq_core *c, struct zq_op *op);
zq_step zq_step_flush, zq_step_drain;

/* ---- one file a kind of operation ---- */

/* The data of a reserved write of direct.c is there, or failed: commits as the long way does. */
void zq_zone_write_done(struct zq_core *c, struct zq_op *op, int rc);

zq_step zq_step_read, zq_step_zone_write, zq_step_write, zq_step_discard, zq_step_manage,
    zq_step_set_state;

#endif
