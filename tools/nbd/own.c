/* SPDX-License-Identifier: MIT */
/* Requests of the thread's own; those of others go on meanwhile. */
#include <errno.h>
#include <string.h>

#include "nbd/session.h"

#define RUNS    1
#define ZEROS   (64u << 10)
#define ALIGNED 4096u

static int own_answered(void *result, int *error)
{
    *(int *)result = -*error;
    return 1;
}

/*
 * `result` is where own_answered() puts it; the connection ends before it goes out of scope. What
 * `changes` the export and has no answer may have been done, or be done later.
 */
static int finish(struct nbd *n, int64_t cookie, const int *result, bool changes)
{
    if (cookie < 0)
        return nbd_is_over(n) ? -ENOTCONN : -(nbd_get_errno() > 0 ? nbd_get_errno() : EIO);
    while (*result == RUNS) {
        nbd_step(n, 1000);
        if (*result == RUNS && nbd_stopped(n)) {
            nbd_drop(n);
            return -ENOTCONN;
        }
    }
    n->unknown += changes && *result == -ENOTCONN;
    n->draining |= *result == -ESHUTDOWN;
    return *result == -ESHUTDOWN ? -ENOTCONN : *result;
}

static uint32_t flags_of(const struct nbd *n)
{
    return n->traits.flush ? 0 : LIBNBD_CMD_FLAG_FUA;
}

int nbd_own_read(struct nbd *n, void *buf, size_t len, uint64_t off)
{
    int result = RUNS;
    nbd_completion_callback cb = {.callback = own_answered, .user_data = &result};

    return finish(n, nbd_aio_pread(n->h, buf, len, off, cb, 0), &result, false);
}

int nbd_own_write(struct nbd *n, const void *buf, size_t len, uint64_t off)
{
    int result = RUNS;
    nbd_completion_callback cb = {.callback = own_answered, .user_data = &result};

    return finish(n, nbd_aio_pwrite(n->h, buf, len, off, cb, flags_of(n)), &result, true);
}

static int zero_piece(struct nbd *n, uint64_t len, uint64_t off)
{
    int result = RUNS;
    nbd_completion_callback cb = {.callback = own_answered, .user_data = &result};

    return finish(n, nbd_aio_zero(n->h, len, off, cb, flags_of(n)), &result, true);
}

int nbd_own_zero(struct nbd *n, uint64_t len, uint64_t off)
{
    static const uint8_t zeros[ZEROS];
    uint64_t most = n->traits.zero ? n->traits.most : ZEROS;
    int rc = 0;

    for (uint64_t piece; rc == 0 && len; off += piece, len -= piece) {
        piece = len < most ? len : most;
        rc = n->traits.zero ? zero_piece(n, piece, off) :
                              nbd_own_write(n, zeros, (size_t)piece, off);
    }
    return rc;
}

void nbd_wrote(struct nbd *n, uint64_t off, uint64_t len, const struct iovec *iov)
{
    struct nbd_write w = {
        .offset = off, .length = len, .data = iov ? (uint8_t *)iov->iov_base : NULL};

    nbd_write_overlay(&w, n->head, sizeof(n->head));
    if (n->traits.flush && n->reconnect)
        nbd_unflushed_add(&n->unflushed, off, len, iov);
}

/* ---- growing ---- */

/* From `from` to the end of its block, of which it keeps the beginning. */
static int zero_tail(struct nbd *n, uint64_t from)
{
    uint8_t block[ALIGNED];
    uint32_t align = n->traits.align, keep = (uint32_t)(from % align);
    struct iovec iov = {block, align};
    int rc = nbd_own_read(n, block, align, from - keep);

    if (rc < 0)
        return rc;
    memset(block + keep, 0, align - keep);
    rc = nbd_own_write(n, block, align, from - keep);
    if (rc == 0)
        nbd_wrote(n, from - keep, align, &iov);
    return rc;
}

/* What lies behind the end of the file is old, and nobody reads it: so zeros may go beyond `end`.
 */
int nbd_grow(struct nbd *n, uint64_t end)
{
    uint64_t align = n->traits.align, from = n->length, to = (end + align - 1) & ~(align - 1);
    int rc = 0;

    if (end > n->traits.bytes)
        return -ENOSPC;
    if (from % align)
        rc = zero_tail(n, from);
    from = (from + align - 1) & ~(align - 1);
    if (rc == 0 && from < to) {
        rc = nbd_own_zero(n, to - from, from);
        if (rc == 0)
            nbd_wrote(n, from, to - from, NULL);
    }
    if (rc == 0)
        n->length = end;
    return rc;
}
