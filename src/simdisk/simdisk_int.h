/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the simulated disk share: sparse content with cheap copies, the log of
 * changes, and what a position of the log leaves open.
 *
 * Invariants. S1 tree nodes are shared between contents and never change while refs > 1.
 * S2 a change is immutable once logged, except `ended` and `result`. S3 pending holds exactly the
 * changes that have begun, are not lost, and that no completed flush covers, in order of `begun`.
 *
 * Ownership. Nodes and changes are counted, because a disk, its log, its cuts and the images built
 * from them share both: a crash state costs only what differs. Disks that share them may be used
 * by different threads, so the counts are atomic. The last holder frees through the hooks of its
 * own disk; images inherit the hooks of the disk that they were cut from.
 */
#ifndef ZQ_SIMDISK_SIMDISK_INT_H
#define ZQ_SIMDISK_SIMDISK_INT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include <zqcow2/simdisk.h>
#include "base/mem.h"
#include "base/os.h"
#include "base/random.h"

#define SIM_PAGE  4096u
#define SIM_FAN   64u
#define SIM_NEVER UINT64_MAX

/*
 * A page, or a table of SIM_FAN nodes below it; a node of level n covers SIM_PAGE * SIM_FAN^n
 * bytes. Its level is not stored: the tree that holds it knows it, and the size to free with it.
 */
struct sim_node {
    _Atomic uint32_t refs;
    union {
        uint8_t page[SIM_PAGE];        /* level 0 */
        struct sim_node *kid[SIM_FAN]; /* above; allocated at that size */
    } u;
};

/*
 * The bytes of a disk. Its hash is a sum, so that a write changes it by what the touched sectors
 * were and are: two disks of equal content and length have equal hashes, whatever was written.
 */
struct sim_content {
    const struct zqcow2_hooks *hooks; /* of the disk that it belongs to */
    struct sim_node *root;            /* NULL: zeros */
    unsigned height;                  /* levels above the pages */
    uint64_t length, hash;            /* hash: sum over sectors that are not zero, and the length */
    bool unhashed;                    /* the hash is not used, so it is not kept */
};

/* simdisk_tree.c. Failures are -ENOMEM and leave a content that is usable but incomplete. */
void sim_content_init(struct sim_content *c, const struct zqcow2_hooks *hooks);
void sim_content_drop(struct sim_content *c);
/* to: dropped; it keeps a hash if from does. */
void sim_content_copy(struct sim_content *to, const struct sim_content *from);
void sim_content_rehash(struct sim_content *c);
void sim_content_read(const struct sim_content *c, void *buf, size_t len, uint64_t off);
/* data NULL: zeros, which do not lengthen the content. */
int sim_content_write(struct sim_content *c, const void *data, uint64_t len, uint64_t off);
int sim_content_truncate(struct sim_content *c, uint64_t length);

/* A change, as it was asked for. The caller's buffers are copied: it may free them at once. */
struct sim_op {
    _Atomic uint32_t refs;   /* of events, of states, of the call until sim_end() */
    uint32_t kind;           /* zqcow2_io_kind */
    uint64_t offset, length; /* length: what it can change, less than asked if it is cut short */
    _Atomic uint64_t begun, ended; /* positions of its events; ended: SIM_NEVER while it flies */
    _Atomic int result;            /* of the call: 0 or -errno; valid once ended is */
    bool empty;                    /* failed and left nothing */
    size_t alloc;                  /* for zq_free() */
    uint8_t data[];                /* WRITE, scrambling DISCARD */
};

/* LOST: a failed flush has lost the change for good, though reads still show it (S3). */
enum sim_event_type { SIM_BEGIN, SIM_END, SIM_LOST };

struct sim_event {
    enum sim_event_type type;
    struct sim_op *op; /* one reference */
};

/* A position: what is durable and what is pending. */
struct sim_state {
    struct sim_content durable;
    struct sim_op **pending; /* a reference each */
    uint32_t n, room;
};

/*
 * From `first` on; events are kept in record mode only. A position is the number of an event: of
 * position p are all events before p. Seeking replays events from `base`, and never backwards.
 */
struct sim_log {
    struct sim_state base; /* at `first` */
    struct sim_event *events;
    size_t n, room; /* events: logged, and allocated */
    uint64_t first; /* position of events[0] */
    bool on;        /* record mode: events are kept, and cuts may seek */
};

/*
 * simdisk_log.c. with_data: room for len bytes behind the struct, not filled yet. NULL: out of
 * memory.
 */
struct sim_op *sim_op_new(const struct zqcow2_hooks *h, uint32_t kind, uint64_t off, uint64_t len,
                          bool with_data);
void sim_op_put(const struct zqcow2_hooks *h, struct sim_op *op);
/*
 * In how many pieces power loss may tear the change: aligned units of `atomic` bytes that it
 * touches.
 */
uint64_t sim_op_units(const struct sim_op *op, uint32_t atomic);
/* Bytes [from, to) of the change, counted from op->offset. */
int sim_op_apply(struct sim_content *c, const struct sim_op *op, uint64_t from, uint64_t to,
                 uint32_t discard);
void sim_state_init(struct sim_state *s, const struct zqcow2_hooks *hooks);
void sim_state_drop(struct sim_state *s);
int sim_state_copy(struct sim_state *to, const struct sim_state *from); /* to: initialised */
/* Makes room so that the next step cannot fail for it. */
int sim_state_reserve(struct sim_state *s);
/*
 * Carries the state over one event. The live disk and a cut that replays use this one function, so
 * a cut cannot disagree with what has happened.
 */
int sim_state_step(struct sim_state *s, enum sim_event_type type, struct sim_op *op,
                   uint32_t discard);
/* Also drops `base`. No cut may be left: it replays these events. */
void sim_log_clear(struct sim_log *l, const struct zqcow2_hooks *hooks);
/* Room for that many further events; nothing if the log is off. */
int sim_log_reserve(struct sim_log *l, const struct zqcow2_hooks *hooks, size_t more);

struct zqcow2_simdisk {
    struct zqcow2_hooks hooks;
    struct zqcow2_simdisk_options opt; /* fixed, except the seed; opt.hooks is NULL: see hooks */
    pthread_mutex_t lock;              /* guards everything below */
    uint64_t rng;            /* what is scrambled, lost or completed next: replayed by the seed */
    struct sim_content view; /* what reads see: the durable bytes and all changes that have ended */
    struct sim_state now;    /* at the end of the log */
    struct sim_log log;
    struct zqcow2_simdisk_counters count; /* count.position: the number of the next event */
    struct zqcow2_simdisk_fault fault;    /* nth 0: none is armed */
    uint64_t off_at; /* the position from which on the power is off: every call fails */
    struct zqcow2_io *flying, **flying_tail; /* asynchronous: backend[0] links, backend[1] the op */
    struct zq_event event;                   /* asynchronous: set while something flies, or woken */
    unsigned exclusive, shared;              /* backends that hold such a lock */
    unsigned cuts;                           /* they replay this log */
};

/*
 * simdisk.c. An empty disk of length 0, its log off. Both arguments are copied; opt has been
 * checked.
 */
int sim_disk_alloc(const struct zqcow2_simdisk_options *opt, const struct zqcow2_hooks *hooks,
                   struct zqcow2_simdisk **out);
void sim_op_describe(const struct sim_op *op, uint32_t atomic, struct zqcow2_simdisk_op *out);

/* simdisk_calls.c; d->lock is held */
/* What reads would show if the page cache were dropped. */
int sim_forget_cache(struct zqcow2_simdisk *d);
/* An armed fault that hits this call: its error, else 0. */
int sim_fault_hit(struct zqcow2_simdisk *d, uint32_t kind);
/* *op: the change, logged as begun. It is the caller's until sim_end(). */
int sim_begin(struct zqcow2_simdisk *d, uint32_t kind, const struct iovec *iov, uint64_t off,
              uint64_t len, int fault, struct sim_op **op);
/* Logs the end, applies it to what reads see, drops the reference. Returns the call's result. */
int sim_end(struct zqcow2_simdisk *d, struct sim_op *op, int fault);
/* From position off_at on: the event with that number never happens. */
bool sim_power_is_off(const struct zqcow2_simdisk *d);
/*
 * -EINVAL, and counted, if the library breaks a limit that the disk has reported. A test that ends
 * with count.misuse != 0 has found a bug of the library, whatever the result of the call was.
 */
int sim_misuse(struct zqcow2_simdisk *d, uint32_t kind, const struct iovec *iov, int cnt,
               uint64_t off, uint64_t len);

/* simdisk_async.c. The callbacks of an asynchronous backend; self is a sim_handle. */
int sim_submit(void *self, struct zqcow2_io *io);
int sim_poll(void *self, int timeout_ms);
void sim_wake(void *self);
int sim_fd(void *self);

struct sim_handle {              /* a backend's self */
    struct zqcow2_simdisk *disk; /* borrowed: the test's, and outlives the handle */
    int lock;                    /* zqcow2_lock that this handle holds */
};

/* simdisk_backend.c */
int sim_readv(void *self, const struct iovec *iov, int cnt, uint64_t off);
const struct zqcow2_backend_ops *sim_ops(bool async);

#endif
