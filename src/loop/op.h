/* SPDX-License-Identifier: MIT */
/*
 * An operation: one request on its way. It goes gather -> reserve -> move -> commit.
 *
 *   gather   pins what the step needs; may park, and is then entered again from its top (K11)
 *   reserve  changes memory in the same hold of the mutex as the last gather; cannot fail
 *   move     data I/O; no pin, no lock
 *   commit   makes it visible; of a sequential zone in reservation order (K7)
 *
 * step() returns ZQ_WAIT while something is under way, else the operation's result.
 */
#ifndef ZQ_LOOP_OP_H
#define ZQ_LOOP_OP_H

#include <zqcow2/queue.h>
#include "qcow2/source.h"
#include "qcow2/tail.h"
#include "zone/zones.h"

struct zq_core;
struct zqcow2_queue;
struct zq_op;
struct zq_snap;
typedef int zq_step(struct zq_core *c, struct zq_op *op);
typedef void zq_release(struct zq_core *c, struct zq_op *op);

/* Which bytes of the request move next, and where the host has them. */
struct zq_transfer {
    uint32_t kind;    /* of zqcow2_io_kind, or ZQ_IO_WORK */
    struct zq_iox *x; /* the host: of the image's file, or of a source */
    uint64_t host, left;
    bool moving; /* they are on their way */
};

/* A compressed cluster: its bytes in the file, and room for what they unpack to. */
struct zq_packed {
    struct zq_iox *x; /* of the file that has them */
    uint32_t cluster_bits, compression;
    int level;          /* of compression; 0: the default */
    uint64_t host, len; /* what is read; `size` bytes from `skew` on are the cluster's */
    uint64_t skew, size;
    uint8_t *in, *out; /* out: a cluster */
    uint64_t in_room, out_room;
};

/* What a new cluster keeps, on its way into memory: of the old cluster, or of the sources. */
struct zq_kept {
    struct zq_packed old; /* the old cluster */
    /* of the sources */
    struct zq_packed packed; /* room for any compressed cluster of the chain */
    uint8_t *buf;
    uint64_t room;         /* bytes of buf */
    uint64_t from, at, to; /* guest: where buf begins, what comes next, where it ends */
    uint8_t phase;
    bool asking, begun;
    bool found; /* something that may be other than zeros */
    struct zq_walk walk;
};

/* Where the rest of a unit comes from that is written in part. */
enum zq_keep { ZQ_KEEP_NOTHING, ZQ_KEEP_OLD, ZQ_KEEP_BELOW, ZQ_KEEP_ZEROS };

/*
 * Clusters for what a guest range maps to: whole in the file first, then linked. New ones, which
 * replace the old; or the old one, for units that have no content in it yet.
 */
struct zq_fill {
    struct zq_list link; /* in the operation's list of prepared, or of whole ones */
    uint64_t guest, bytes, host;
    uint64_t head, tail; /* what the request writes; beside it the old content is kept */
    uint64_t from, to;   /* the units that this touches; 0 <= from <= head <= tail <= to <= bytes */
    enum zq_keep keep_head, keep_tail; /* of [from, head), and of [tail, to) */
    uint32_t data_kind; /* how the request's own bytes get in between, and how many */
    uint64_t data_len;
    struct zq_extent old; /* where the request's bytes begin */
    uint64_t packed;      /* bytes from host on that have the cluster compressed; 0: it is not */
    bool in_place;        /* host is the old cluster, or none yet: there is nothing to give back */
    bool virgin;
    uint8_t phase;
    struct zq_freed *freed; /* takes the new clusters on failure, the old ones on success */
    struct zq_kept *kept;   /* NULL: nothing is */
};

/* Guest clusters that no other operation may change the mapping of (R14): in the core's list. */
struct zq_owned_range {
    struct zq_list link;
    bool held;
};

/* How far the unmapping of what is mapped beyond write pointers has come. */
struct zq_ahead {
    uint32_t zone;
    uint64_t at;    /* device address; 0: the zone has not been begun */
    bool idle_only; /* zones that operations work on are passed over */
};

/* How far a drain has come. */
struct zq_drain {
    uint8_t phase;
    bool counted; /* in nr_drains */
    struct zq_ahead ahead;
};

/* How far the cut of the file's end has come. */
struct zq_truncation {
    uint8_t phase;
    bool failed; /* the search */
    struct zq_tail tail;
};

/* How far a new table of persistent zone states has come (R15). */
struct zq_making {
    uint8_t phase;
    uint8_t *zeros;         /* on their way into the file */
    struct zq_freed *freed; /* takes its clusters if that fails */
};

/* What only one kind of operation uses, all 0 at its beginning. phase: an enum of its file. */
union zq_op_own {
    struct {
        uint8_t phase;
        uint32_t seen; /* zones that have been found not to be OFFLINE */
        struct zq_walk walk;
        struct zq_packed packed; /* the compressed cluster that is read */
    } read;
    struct {
        uint8_t phase;
        struct zq_walk walk;
        uint64_t data, data_end; /* the next bytes of a raw source that may not be zeros */
    } status;
    struct {
        uint8_t phase;
        uint64_t mapped; /* bytes from the write's first one on */
    } zone_write;
    struct {
        uint8_t phase;
        uint64_t prepared; /* bytes of the request that nothing but I/O can hinder any more */
        bool in_place;     /* some of them will be written where they lie */
        uint32_t space;    /* zeros are mapped like data, by this kind of I/O; 0: they are not */
    } overwrite;
    struct {
        uint8_t phase;
        uint64_t done;     /* bytes of the request, whole zones */
        uint64_t unmapped; /* of the zone beyond its write pointer: up to this device address */
        uint32_t seen;     /* "open all": zones that have been looked at for the limit */
        uint64_t closed;   /* of these: to be opened */
    } manage;
    struct {
        uint8_t phase;
        struct zq_making making;
    } state;
    struct {
        uint8_t phase;
        bool uses; /* the table of extensions is this operation's */
        struct zq_making making;
        uint8_t *buf;         /* sectors of that table; of a get: and which zones have one */
        uint64_t from, bytes; /* where these sectors are, how many bytes */
        uint32_t zones;       /* of a get: in buf */
    } descriptor;
    struct zq_drain drain;
    struct {
        struct zq_drain drain;
        uint8_t phase;
        bool holds; /* nothing else is admitted because of it */
        struct zq_snap *what;
    } snapshot;
    struct {
        uint8_t phase;
        struct zq_ahead ahead;
        struct zq_truncation cut;
    } shutdown;
    struct {
        uint8_t phase;
        struct zq_freed *freed; /* the record at work on */
        uint32_t zone;          /* that is being punched, from device address `at` on */
        uint64_t at;            /* also of clusters of a data file */
        struct zq_ahead ahead;
    } janitor;
};

struct zq_op {
    /* first what the fast path uses (fast.c): few cache lines, next to one another */
    struct zq_core *core;
    void (*finish)(struct zq_op *op); /* under the mutex, when all is over */
    struct zq_list link;              /* queue: free or completed list */
    struct zqcow2_queue *queue;       /* that it belongs to, or NULL */
    struct zqcow2_request req;
    struct zqcow2_result res;
    uint64_t length; /* of the whole request, bytes */
    uint64_t begun;  /* when it was submitted (tally.h); 0: its time is not measured */
    uint32_t zone;   /* that it writes, or whose turn it has or had */
    bool finished;
    bool attended; /* a thread waits for it in a call; not of the fast path, which sets nothing */
    struct zq_reservation r;
    struct zq_io io;
    /* what follows is of the slow path */
    struct zq_gather g; /* g.wait.link: ready list, or what it is parked on */
    zq_step *step;
    zq_release *release; /* gives back all that the kind may hold, at the end; or NULL */
    int rc;              /* of the io that was under way */
    uint64_t round;      /* waits until this many rounds have been done */
    /* the request's bytes */
    uint32_t iov_at; /* cursor into req.iov */
    size_t iov_skip;
    uint64_t pos; /* bytes of it that are done */
    struct zq_transfer xfer;
    struct iovec seg[ZQ_IO_SEGMENTS];
    /* what space/ keeps for it; see release */
    struct zq_owned_range range;
    struct zq_list turn; /* in the admission FIFO of `zone` */
    bool has_turn;
    struct zq_list fills; /* prepared */
    struct zq_fill *fill; /* at work, or NULL */
    struct zq_list made;  /* whole in the file, and not linked yet */
    uint64_t slices_upto; /* device address up to which `slices` counts */
    struct zq_list spare; /* zq_freed records for unmapping */
    uint32_t nr_spare;
    uint32_t slices; /* of L2 tables, that will change by what is prepared */
    union zq_op_own own;
};

#endif
