/* SPDX-License-Identifier: MIT */
/*
 * Block status: the answer of one look-up in each image of the chain that is asked, so that it
 * costs a slice of L2 in each at most, however large the range is. It agrees with what a read at
 * that moment returns (I5), so it does not show what is mapped beyond a write pointer. Of a raw
 * source the host knows which bytes are holes: they are zeros.
 */
#include <errno.h>
#include "ops/block_status.h"
#include "base/mem.h"
#include "base/report.h"
#include "ops/read.h"
#include "space/transfer.h"

enum { B_FIRST, B_SOURCE, B_HOLES, B_ANSWER };

static const uint32_t kinds[] = {
    [ZQ_EXT_UNALLOC] = ZQCOW2_BLOCK_UNALLOCATED,
    [ZQ_EXT_ZERO] = ZQCOW2_BLOCK_ZERO,
    [ZQ_EXT_DATA] = ZQCOW2_BLOCK_DATA,
    [ZQ_EXT_COMPRESSED] = ZQCOW2_BLOCK_COMPRESSED,
};

/* The caller's element holds a struct of the size that the struct itself names. */
static struct zqcow2_extent *answer_of(const struct zq_op *op)
{
    const struct iovec *iov = op->req.iov;
    struct zqcow2_extent *to;

    if (op->req.iovcnt != 1 || iov->iov_len < sizeof(to->size))
        return NULL;
    to = iov->iov_base;
    return to->size <= iov->iov_len ? to : NULL;
}

/* The image's own answer; if it maps nothing, its source is asked next. */
static int ask_image(struct zq_core *c, struct zq_op *op)
{
    struct zq_walk *w = &op->own.status.walk;
    struct zq_extent e = {.type = ZQ_EXT_UNALLOC};
    uint64_t len = zq_readable(c, op->req.offset, op->length, &e.len);
    int rc = len ? zq_map_lookup(&c->map, &op->g, op->req.offset, len, &e) : 0;

    if (rc)
        return rc;
    zq_cache_release(&c->cache, &op->g);
    *w = zq_walk_from(len && e.type == ZQ_EXT_UNALLOC ? c->source : NULL, op->req.offset, e.len);
    w->e = e;
    op->own.status.phase = w->at ? B_SOURCE : B_ANSWER;
    return 0;
}

/* Runs without the mutex: a host may have to read to answer. If it does not know, all is data. */
static void holes_work(struct zq_io *io)
{
    struct zq_op *op = zq_container(io, struct zq_op, io);
    const struct zq_walk *w = &op->own.status.walk;
    uint64_t *begin = &op->own.status.data, *end = &op->own.status.data_end;

    io->ret = zq_be_data(w->at->x.be, w->e.host, begin, end);
    if (io->ret == 0 && *begin == *end)
        *begin = *end = UINT64_MAX;
    if (io->ret == -EOPNOTSUPP) {
        *begin = w->e.host;
        *end = UINT64_MAX;
        io->ret = 0;
    }
}

static int ask_source(struct zq_core *c, struct zq_op *op)
{
    struct zq_walk *w = &op->own.status.walk;
    int rc = zq_walk(w, &op->g);

    if (rc)
        return rc;
    op->own.status.phase = B_ANSWER;
    if (!w->at || !w->at->raw)
        return 0;
    op->own.status.phase = B_HOLES;
    return zq_op_call(c, op, holes_work);
}

/* Whole sectors: one that holds data somewhere is data. */
static void take_holes(struct zq_op *op)
{
    struct zq_extent *e = &op->own.status.walk.e;
    uint64_t begin = zq_align_down(op->own.status.data, ZQ_SECTOR);
    uint64_t end = op->own.status.data_end;

    if (begin > e->host) {
        e->type = ZQ_EXT_ZERO;
        e->len = zq_min(e->len, begin - e->host);
    } else if (end - e->host < e->len) {
        e->len = zq_align_up(end - e->host, ZQ_SECTOR);
    }
}

/* Offset 0 is valid in a data file and in a raw source, so the entry says it. */
static bool has_host(const struct zq_walk *w)
{
    const struct zq_extent *e = &w->e;

    if (e->type == ZQ_EXT_COMPRESSED)
        return false;
    return e->l2.len || e->type == ZQ_EXT_DATA || (w->at && w->at->raw);
}

/*
 * UINT64_MAX: no byte of the file holds it. The mapping was looked at once, so the answer is of one
 * moment, though it may be out of date when the caller sees it.
 */
static int give_answer(struct zq_op *op, struct zqcow2_extent *to)
{
    const struct zq_walk *w = &op->own.status.walk;
    struct zqcow2_extent st = ZQCOW2_EXTENT_INIT;

    zq_assert_k(I5, w->e.len && w->e.len <= op->length);
    st.kind = kinds[w->e.type];
    st.depth = w->depth;
    st.length = w->e.len;
    st.host = has_host(w) ? w->e.host : UINT64_MAX;
    return zq_return_sized(to, &st, sizeof(st), offsetof(struct zqcow2_extent, host));
}

int zq_step_block_status(struct zq_core *c, struct zq_op *op)
{
    struct zqcow2_extent *to = answer_of(op);
    int rc = to ? op->rc : -EINVAL;

    if (rc < 0 && op->own.status.phase == B_SOURCE)
        zq_walk_drop(&op->own.status.walk, &op->g);
    if (rc == 0 && op->own.status.phase == B_FIRST)
        rc = ask_image(c, op);
    if (rc == 0 && op->own.status.phase == B_SOURCE)
        rc = ask_source(c, op);
    if (rc)
        return rc;
    if (op->own.status.phase == B_HOLES)
        take_holes(op);
    return give_answer(op, to);
}
