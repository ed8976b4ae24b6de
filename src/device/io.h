/* SPDX-License-Identifier: MIT */
/*
 * Requests from an image to its backend. io.c is the only caller of a backend's operations while
 * an image is open: it aligns, bounces, keeps read-modify-write ranges apart and fills in what a
 * backend lacks.
 *
 * An io is started under the image's mutex, issued without it, and finished under it again. It
 * belongs to the struct that embeds it; between start and complete() nothing in it may change.
 */
#ifndef ZQ_DEVICE_IO_H
#define ZQ_DEVICE_IO_H

#include <errno.h>
#include "device/backend.h"
#include "base/cost.h"
#include "base/list.h"

#define ZQ_BOUNCE_BYTES (128u << 10) /* of a backend that wants alignment; else SMALL: */
#define ZQ_BOUNCE_SMALL (4u << 10)   /* for sectors that lie in more elements than it takes */
#define ZQ_BOUNCES      4u
#define ZQ_IO_SEGMENTS  8u

/*
 * The host has no room for a write: what is in the file is an old or a new version, sector by
 * sector, and room may come (R10). After any other error the content is unknown.
 */
static inline bool zq_is_no_space(int rc)
{
    return rc == -ENOSPC || rc == -EDQUOT || rc == -EFBIG;
}

/*
 * What a caller gets for a failed barrier. "No space" would mean that nothing is lost and a later
 * flush may succeed (R10), but no later barrier brings back what a failed one has lost (R11).
 */
static inline int zq_barrier_error(int rc)
{
    return zq_is_no_space(rc) ? -EIO : rc;
}

/*
 * Beyond the public kinds: `work` runs outside the mutex, in a thread that issues I/O. It waits in
 * a list of its own, because it may take long.
 */
#define ZQ_IO_WORK 0x100u
/* Zeros with space for [offset, offset + length), by the backend's allocate(). */
#define ZQ_IO_ALLOCATE 0x101u
/* Zeros that are written: no I/O has this kind, but an operation may want it. */
#define ZQ_IO_FILL 0x102u

/* First what every data I/O uses, so that it touches few cache lines. */
struct zq_io {
    struct zqcow2_io pub; /* first: what the backend sees */
    struct zq_iox *x;
    struct zq_list link;                         /* submit, done or parked list */
    void (*complete)(struct zq_io *io, int ret); /* under the mutex */
    int ret;
    bool in_pieces;                 /* pub is a piece of `whole` */
    size_t skip;                    /* bytes of the first element that are not meant */
    struct zq_list flight;          /* of data I/O: in x->flight */
    uint64_t seq;                   /* of data I/O: its number; else 0 */
    void (*work)(struct zq_io *io); /* WORK: sets io->ret */
    uint32_t cost;                  /* of it */
    struct iovec one;               /* room for a request of one buffer */
    struct iovec *seg; /* room for the elements of a piece, ZQ_IO_SEGMENTS, or NULL: one */
    /* of an io in pieces */
    struct {
        uint32_t kind, iovcnt;
        uint64_t offset, length;
        const struct iovec *iov;
    } whole;                  /* the caller's view */
    uint64_t pos, piece;      /* bytes that are done, that are at work */
    uint32_t at;              /* which element comes next; `skip` bytes of it are done */
    struct iovec part;        /* room for a piece of one element */
    struct zq_bounce *bounce; /* of this piece, or NULL */
    struct zq_list range;     /* in x->writes; only where the backend needs alignment */
};

struct zq_bounce {
    uint8_t *buf;
    bool busy, reading; /* reading: the first half of a read-modify-write, or a read */
};

/* The I/O side of one image, or of one of its sources. The image's mutex protects the lists. */
struct zq_iox {
    struct zqcow2_backend *be;        /* fixed */
    struct zq_iox *image, *next;      /* fixed: the image's own; of its next source, or NULL */
    const struct zqcow2_hooks *hooks; /* fixed: the image's */
    bool takes_any;                   /* fixed: whole sectors, at any address */
    bool called;                      /* fixed: asynchronous, but zq_be_is_called() */
    bool alone;                       /* fixed: zq_io_alone_run() may be used */
    uint64_t max_piece;               /* fixed: bytes in one call; UINT64_MAX: no limit */
    uint32_t bounce_bytes;            /* fixed: of each buffer, none above max_piece */
    void (*notify)(struct zq_iox *x, struct zq_io *io); /* fixed: an io was done by the backend */
    void (*away)(struct zq_iox *x, int ios); /* fixed: a thread begins (> 0) or has ended (< 0) so
                                                many in blocking calls */
    struct zq_list submit;                   /* started, to be issued */
    struct zq_list work;                     /* of the kind WORK: the same; in the image's only */
    struct zq_list done;           /* done, to be finished; of all files, in the image's */
    struct zq_list writes, parked; /* unless takes_any: writes in flight. ios that wait */
    struct zq_bounce bounce[ZQ_BOUNCES];
    unsigned in_flight;            /* started and not finished */
    unsigned in_calls;             /* of these: in a blocking call of an asynchronous backend */
    struct zq_list flight;         /* data I/O that looked up its clusters, oldest first */
    struct zq_list flight_waiters; /* for the oldest of them */
    struct zq_list *ready;         /* fixed: where woken waiters go */
    uint64_t data_seq;             /* number of the newest data I/O */
    bool unbarriered;              /* something was written since the last flush began */
    uint64_t flushes;              /* that were begun */
};

/* May zq_io_alone_run() be used, as far as this file is concerned? */
static inline bool zq_io_is_alone(const struct zq_iox *x)
{
    return zq_be_is_called(x->be) && x->takes_any;
}
/* x->be, image, hooks, ready, notify and away are set. -ENOMEM. */
int zq_iox_init(struct zq_iox *x);
void zq_iox_fini(struct zq_iox *x);

/* The answer of the backend, which has been judged. */
void zq_io_done(struct zqcow2_io *pub, int ret);
/* Fill in an io of one kind; the caller has set complete. */
static inline void zq_io_prep(struct zq_io *io, unsigned kind, uint64_t off, uint64_t len)
{
    io->pub.kind = kind;
    io->pub.iovcnt = 0;
    io->pub.offset = off;
    io->pub.length = len;
    io->pub.iov = NULL;
    io->in_pieces = false;
    io->skip = 0;
    io->seg = NULL;
    io->ret = 0;
    io->seq = 0;
}
void zq_io_prep_buf(struct zq_io *io, unsigned kind, void *buf, uint64_t off, uint64_t len);

/*
 * Zeros with space behind them, so that a round will not find the host without (R10): a backend's
 * ZERO may make a hole. First the beginning of [off, end); then, when a piece is done with ret, the
 * next one. False: that was all, or it failed.
 */
void zq_io_first_zeros(const struct zq_iox *x, struct zq_io *io, uint64_t off, uint64_t end);
/* The same, but all of them are written. */
void zq_io_write_zeros(struct zq_io *io, uint64_t off, uint64_t end);
bool zq_io_more_zeros(const struct zq_iox *x, struct zq_io *io, uint64_t end, int ret);

/*
 * Under the mutex. Whatever the backend's limits are, the caller need not know them: what does not
 * fit goes in pieces, one at a time, cut and padded as the backend wants it. The elements may hold
 * more than the length; there may be any number of them, of any length.
 */
void zq_io_start(struct zq_iox *x, struct zq_io *io);
/* A data I/O whose clusters must not change hands while it runs (R5). */
static inline void zq_io_enter_flight(struct zq_iox *x, struct zq_io *io)
{
    io->seq = ++x->data_seq;
    zq_list_push(&x->flight, &io->flight);
}
static inline void zq_io_start_data(struct zq_iox *x, struct zq_io *io)
{
    zq_io_enter_flight(x, io);
    zq_io_start(x, io);
}
/* The same, where zq_io_is_whole() holds. */
void zq_io_start_pieces(struct zq_iox *x, struct zq_io *io);
static inline void zq_io_start_whole(struct zq_iox *x, struct zq_io *io)
{
    zq_io_enter_flight(x, io);
    io->x = x;
    io->pub.done = zq_io_done;
    x->in_flight++;
    if (x->takes_any)
        zq_list_push(&x->submit, &io->link);
    else
        zq_io_start_pieces(x, io); /* beside others that it must not meet */
}
/* Has every data I/O numbered up to seq finished? */
static inline bool zq_io_all_past(const struct zq_iox *x, uint64_t seq)
{
    return zq_list_empty(&x->flight) ||
           zq_container(x->flight.next, struct zq_io, flight)->seq > seq;
}
/* The oldest data I/O is gone: its waiters check again. */
static inline void zq_io_leave_flight(struct zq_iox *x, struct zq_io *io)
{
    bool oldest = x->flight.next == &io->flight;

    zq_list_del(&io->flight);
    if (oldest && !zq_list_empty(&x->flight_waiters))
        zq_list_splice(x->ready, &x->flight_waiters);
}
void zq_io_finish(struct zq_io *io);
/* Is there one that no thread carries out, so that one must listen for its end? */
static inline bool zq_io_awaited(const struct zq_iox *x)
{
    return x->in_flight > x->in_calls;
}

/* Can one call carry all of a transfer from or to this buffer? Whole sectors, and some. */
static inline bool zq_io_is_whole(const struct zq_iox *x, uint64_t off, const struct iovec *iov)
{
    const struct zqcow2_limits *l = &x->be->limits;

    return iov->iov_len <= x->max_piece &&
           (x->takes_any || (!((off | iov->iov_len) & (l->io_align - 1)) &&
                             !(((uintptr_t)iov->iov_base | iov->iov_len) & (l->buf_align - 1))));
}

/*
 * One read or write of data in a single blocking call, past the lists of what is to be issued and
 * finished: begin and end under the mutex, run without it. The backend takes any buffer and is
 * called, and zq_io_is_whole() holds. It is not counted in in_flight.
 */
static inline void zq_io_alone_begin(struct zq_iox *x, struct zq_io *io)
{
    zq_io_enter_flight(x, io);
}
static inline int zq_io_alone_run(const struct zq_iox *x, const struct zq_io *io)
{
    const struct zqcow2_io *p = &io->pub;

    return p->kind == ZQCOW2_IO_READ ? zq_call_readv(x->be, p->iov, (int)p->iovcnt, p->offset) :
                                       zq_call_writev(x->be, p->iov, (int)p->iovcnt, p->offset);
}
static inline void zq_io_alone_end(struct zq_iox *x, struct zq_io *io)
{
    zq_io_leave_flight(x, io);
    if (io->pub.kind == ZQCOW2_IO_WRITE)
        x->unbarriered = true;
}
/*
 * Without the mutex: hands a batch to the backend. Those that are done on return move to
 * `finished`; the others come through notify. own: what this thread carries out in any case.
 */
void zq_io_issue(struct zq_iox *x, struct zq_list *batch, struct zq_list *own,
                 struct zq_list *finished);

#endif
