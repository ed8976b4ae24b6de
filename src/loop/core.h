/* SPDX-License-Identifier: MIT */
/* Everything an image is, by value, and what the files of the engine offer one another. */
#ifndef ZQ_LOOP_CORE_H
#define ZQ_LOOP_CORE_H

#include <pthread.h>
#include "base/events.h"
#include "base/report.h"
#include "bitmap/bitmap.h"
#include "loop/op.h"
#include "loop/tally.h"
#include "loop/turn.h"
#include "format/header.h"
#include "qcow2/source.h"
#include "zone/changes.h"

#define ZQ_ROUND_IOS 16u
#define ZQ_ROUND_BUF 4096u

enum zq_stage {
    ZQ_ST_IDLE,
    ZQ_ST_MARK,   /* the in-use mark, before the first allocation (R12) */
    ZQ_ST_META,   /* refcounts raised, pointers back to start; with it all data so far */
    ZQ_ST_TABLE,  /* refcount table entries of new blocks, or the switch to a grown table */
    ZQ_ST_L2,     /* L1, and entries of L2 tables */
    ZQ_ST_FULL,   /* pointers that become FULL, if I7 wants them first */
    ZQ_ST_WP,     /* all other write pointers */
    ZQ_ST_STATES, /* persistent zone states, or the header that names their new table */
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
    bool data_barrier; /* of a data file: begun or done in this stage */
    bool asked;        /* the backend, in this round: by a barrier, or for its length */
    bool fatal;        /* the content of the disk is unknown now (I12) */
    int rc;            /* < 0: it stops when what is in flight has drained */
    uint64_t done;     /* the last that ended well; the last begun: alloc.rounds */
    unsigned in_flight;
    uint64_t cursor;                /* within the stage */
    uint64_t bitmap;                /* whose flag comes next */
    bool flags;                     /* it writes those of bitmaps (B1) */
    bool mark;                      /* it writes the mark: asked for before the stage began */
    uint32_t sector, states_sector; /* of the tables of write pointers, of states: in a pass */
    uint8_t phase;                  /* of the stage: round.c */
    bool paused;                    /* in a pass: op comes again to go on with it (E7) */
    struct zq_op op;
    uint64_t length; /* of the file, at least: what an answer is held against */
    struct zq_list waiters;
    struct zq_io flush;
    struct zq_round_io io[ZQ_ROUND_IOS];
    uint8_t *bufs;
};

/* A table of persistent zone states that the header does not name yet (R15). */
struct zq_new_states {
    uint64_t host; /* its clusters are taken; 0: there is none */
    bool whole;    /* and zeros are written: the next round names it */
    bool naming;   /* the running round does */
    const struct zq_op *maker;
    struct zq_list waiters; /* for the maker */
};

/* R16: sectors of the table of descriptor extensions are read and rewritten, by one at a time. */
struct zq_descriptors {
    const struct zq_op *user;
    struct zq_list waiters;
};

/* Requests that a layer above runs the loop when no thread does (E4). ring: under the mutex. */
struct zq_doorbell {
    struct zq_list link;
    void (*ring)(struct zq_doorbell *bell);
    uint32_t pending;      /* its requests in flight: with some, it watches the backend itself */
    bool audible;          /* it has a descriptor to wait on */
    struct zq_tally tally; /* of its requests */
};

/* May the file be used? Else it is another program's, and there are no parts (H1). */
enum zq_activity {
    ZQ_ACTIVE,
    ZQ_INACTIVE,
    ZQ_CHANGING /* parts are closed or built, without the mutex: nobody else may look at them */
};

struct zq_upper;

struct zq_core {
    /* fixed after open, and while it is active */
    const struct zq_upper *upper;
    struct zqcow2_hooks hooks;
    struct zqcow2_backend *be;
    struct zq_source *source;       /* who answers for what is not mapped; NULL: zeros */
    bool source_absent;             /* there is one, and it was not to be opened */
    struct zqcow2_backing *backing; /* what the header says of it, and of a data file; or NULL */
    bool borrowed, writable, zoned;
    struct zq_header hdr; /* a snapshot or a resize changes what it says of L1, size, snapshots */
    uint64_t size, extent_bytes;
    uint64_t seq_start; /* where sequential zones begin; size where there are none */
    uint32_t cluster_bits, info_flags;
    uint32_t block_mask; /* offsets and lengths of requests have none of these bits */

    pthread_mutex_t mutex; /* guards all below */
    pthread_mutex_t turn;  /* held by the thread that waits for the mutex: see zq_core_lock() */
#ifndef NDEBUG
    pthread_t holder; /* of the mutex, while it is held */
    bool held;
#endif
    pthread_cond_t cond;        /* threads that wait for progress of others */
    unsigned runners, sleepers; /* threads in the engine; threads in cond */
    unsigned waiters;           /* threads in a blocking call: they run the loop till they leave */
    unsigned away;              /* runners inside a blocking call of an asynchronous backend */
    unsigned passing;           /* threads of calls that drop the mutex, and are none of these */
    bool polling, wake_poller;
    pthread_t poller;
    unsigned nr_ops, nr_drains; /* begun and not finished; drains among them */
    struct zq_list drain_waiters;
    /* An operation has the image for itself: others do not begin (N8). Or it is not active. */
    bool exclusive;
    enum zq_activity activity;
    struct zq_list gate_waiters; /* those */
    struct zq_list doorbells;    /* of queues */
    bool timed;                  /* requests that are submitted now are */
    bool straight;               /* blocking calls try the fast path first: x.alone, not timed */
    struct zq_tally tally;       /* of blocking calls, and of queues that are closed */
    bool dead, death_logged;
    int dead_rc;
    bool sealed; /* takes no (more) changes: dead, corrupt, or for reading */
    /* What a change has to ask: sealed, or bitmaps are kept. */
    bool guarded;
    bool corrupt, corrupt_marked, corrupt_logged; /* corrupt: sealed because of alloc.corrupt */
    struct zq_events events;
    struct zq_stale stale; /* a source has changed (S12) */
    bool stale_logged;
    uint8_t sector0[ZQ_SECTOR]; /* the header's first sector, as on disk */
    bool marked, want_mark;     /* the mark is durable, or not needed; an operation waits for it */
    bool marks_dirty;           /* the dirty bit is set with the mark, or in its place */

    /* Of the portion of work that the running thread may do: what is left. Else of no meaning. */
    int32_t left;
    bool spent;           /* the last was used up: nobody knows whether there is more to do */
    struct zq_list ready; /* operations to step */
    struct zq_list calls; /* I/O that blocks, each of an operation whose thread will do it (E6) */
    struct zq_iox x;      /* of the image's file */
    struct zq_iox *data;  /* fixed: of the file that has the data: x, or data_file.x */
    struct zq_data_file data_file;
    struct zq_cache cache;
    struct zq_alloc alloc;
    struct zq_map map;
    struct zq_zones zones;
    struct zq_changes changes; /* of them, by the embedding program */
    struct zq_new_states new_states;
    struct zq_descriptors descriptors;
    struct zq_bitmaps bitmaps; /* of a writable image */
    bool want_flags;           /* a change waits for the bitmaps' flags (B1) */
    struct zq_round round;
    struct zq_list owners; /* operations whose guest clusters belong to them (R14) */
    struct zq_list owner_waiters;
    struct zq_stock fills;
    struct zq_op janitor; /* gives clusters and space back */
    bool janitor_running, want_janitor;
    bool swept; /* for those who wait for room: what idle zones have ahead is on its way, or gone */
    bool leaked; /* clusters could not be given back */
};

/* What the loop asks of the layers above it. */
struct zq_upper {
    /* A step has returned its result: the operation gives back what it holds and is finished. */
    void (*end)(struct zq_core *c, struct zq_op *op, int rc);
    /* Nothing can be done now. True: there is something to do again. */
    bool (*idle)(struct zq_core *c);
};

/* ---- loop.c ---- */

/* The holder of the mutex is kept for assertions only. */
#ifdef NDEBUG
static inline void zq_core_set_held(struct zq_core *c, bool held)
{
    (void)c;
    (void)held;
}
static inline bool zq_core_is_held(const struct zq_core *c)
{
    (void)c;
    return true;
}
#else
static inline void zq_core_set_held(struct zq_core *c, bool held)
{
    c->holder = pthread_self();
    c->held = held;
}
/* By this thread? */
static inline bool zq_core_is_held(const struct zq_core *c)
{
    return c->held && pthread_equal(c->holder, pthread_self());
}
#endif
/* Whatever changes alone or timed ends with this. */
static inline void zq_core_set_straight(struct zq_core *c)
{
    c->straight = c->x.alone && !c->timed;
}
/* Inline: each request takes the mutex twice. */
static inline void zq_core_lock(struct zq_core *c)
{
    if (pthread_mutex_trylock(&c->mutex))
        zq_turn_wait(&c->mutex, &c->turn);
    zq_core_set_held(c, true);
}
static inline void zq_core_unlock(struct zq_core *c)
{
    zq_assert(zq_core_is_held(c));
    zq_core_set_held(c, false);
    pthread_mutex_unlock(&c->mutex);
}
int zq_core_init(struct zq_core *c); /* hooks, be are set */
/* Of a source, too: its I/O completes in this image's loop. */
void zq_core_set_iox(struct zq_core *c, struct zq_iox *x, struct zqcow2_backend *be);
void zq_core_fini(struct zq_core *c);
/*
 * Closes what open has built for the content of the file, with sources and data file; what has been
 * built in part, too. Without the mutex, as this may block: nothing else may be at work on it.
 */
void zq_core_close_parts(struct zq_core *c);
/* Under the mutex: behind a portion that was used up, a thread that waits for it comes first. */
static inline void zq_core_take_turns(struct zq_core *c)
{
    c->passing++;
    zq_core_unlock(c);
    zq_turn_wait(&c->mutex, &c->turn);
    zq_core_set_held(c, true);
    c->passing--;
}
/* Under the mutex, which it may drop: this thread begins a portion of work (E7). */
static inline void zq_loop_begin(struct zq_core *c)
{
    if (c->spent)
        zq_core_take_turns(c);
    c->left = ZQ_PORTION;
}
/*
 * Under the mutex, which it drops while it does I/O: works until there is nothing to do now, or the
 * portion that the thread has begun is used up. op: the operation that the calling thread waits
 * for, and may block for; NULL: it may not.
 */
void zq_loop_run(struct zq_core *c, const struct zq_op *op);
/*
 * Under the mutex: waits until others or the backend have made progress, at most timeout_ms, and
 * not at all if there is work left. Then does a portion.
 */
void zq_loop_wait(struct zq_core *c, struct zq_op *op, int timeout_ms);
/* Is there work that a thread could go on with at once? */
bool zq_loop_is_due(const struct zq_core *c);
/* A thread leaves, and no completion will announce what is left of the work: another one hears. */
void zq_loop_pass_on(struct zq_core *c);
/* Sets what the slow path starts from, except what gather and its users set first. */
void zq_op_reset(struct zq_core *c, struct zq_op *op, zq_step *step, zq_release *release);
void zq_op_step(struct zq_op *op);
void zq_op_ready(struct zq_op *op);
/* Parks op, which then holds nothing, until a round or another operation has made progress. */
static inline int zq_op_park(struct zq_core *c, struct zq_op *op, struct zq_list *on)
{
    zq_cache_release(&c->cache, &op->g);
    zq_assert(zq_core_is_held(c) && zq_list_empty(&op->g.wait.link));
    zq_list_push(on, &op->g.wait.link);
    return ZQ_WAIT;
}
/*
 * Between two pieces of op's work, where it holds nothing in the cache. 0: it goes on. ZQ_WAIT: the
 * portion is used up; the operation comes again, behind the others that are ready (E7).
 */
static inline int zq_op_pay(struct zq_core *c, struct zq_op *op, int32_t cost)
{
    zq_assert_k(E7, cost > 0 && zq_core_is_held(c) && !op->finished);
    c->left -= cost;
    return c->left > 0 ? 0 : zq_op_park(c, op, &c->ready);
}
/* It has its result: no drain waits for it any more. */
static inline void zq_op_over(struct zq_core *c, struct zq_op *op)
{
    zq_assert(zq_core_is_held(c) && c->nr_ops);
    op->finished = true;
    c->nr_ops--;
    if (!zq_list_empty(&c->drain_waiters))
        zq_wake(&c->ready, &c->drain_waiters);
}
/* Does a thread wait, in a call, or with requests in flight on a descriptor? */
bool zq_loop_is_heard(const struct zq_core *c);
/* A thread leaves: another must notice the image's own I/O, for which no caller waits. */
void zq_loop_hand_over(struct zq_core *c);
/* What the log and the handler of events have not heard yet. It drops the mutex for them. */
void zq_core_report(struct zq_core *c);
/* An operation has finished: threads that sleep or poll for it look again. */
void zq_loop_wake_others(struct zq_core *c);
/* What a write's I/O came to: a dead image acknowledges nothing more (R11). */
static inline int zq_acknowledged(const struct zq_core *c, int rc)
{
    return rc == 0 && c->dead ? ZQCOW2_EDEAD : rc;
}
void zq_core_die(struct zq_core *c, int rc);
/* Bitmaps are kept now, or are not any more. */
static inline void zq_core_guard(struct zq_core *c)
{
    c->guarded = c->sealed || c->bitmaps.keeps;
}

#endif
