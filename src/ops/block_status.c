/* SPDX-License-Identifier: MIT */
/*
 * Block status: the answer of one look-up, so that it costs a slice of L2 at most, however large
 * the range is. It agrees with what a read at that moment returns (I5), so it does not show what is
 * mapped beyond a write pointer.
 */
#include <errno.h>
#include "ops/block_status.h"
#include "base/mem.h"
#include "base/report.h"
#include "ops/read.h"

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

static bool has_host(const struct zq_extent *e)
{
    return e->type == ZQ_EXT_DATA || (e->type == ZQ_EXT_ZERO && e->host);
}

int zq_step_block_status(struct zq_core *c, struct zq_op *op)
{
    struct zqcow2_extent st = ZQCOW2_EXTENT_INIT, *to = answer_of(op);
    struct zq_extent e = {.type = ZQ_EXT_UNALLOC};
    uint64_t len;
    int rc = op->rc;

    if (!to)
        return -EINVAL;
    len = zq_readable(c, op->req.offset, op->length, &e.len);
    if (rc == 0 && len)
        rc = zq_map_lookup(&c->map, &op->g, op->req.offset, len, &e);
    if (rc)
        return rc;
    zq_assert_k(I5, e.len && e.len <= op->length);
    st.kind = kinds[e.type];
    st.length = e.len;
    st.host = has_host(&e) ? e.host : UINT64_MAX;
    return zq_return_sized(to, &st, sizeof(st), offsetof(struct zqcow2_extent, host));
}
