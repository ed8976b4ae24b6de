/* SPDX-License-Identifier: MIT */
/* Writes a table that moves, and switches to it. */
#include "device/move.h"
#include "base/bytes.h"
#include "base/report.h"

/* The next piece, in buf; *n: its bytes. It counts as written from now on. */
static int take_piece(struct zq_move *m, uint8_t *buf, uint64_t room, uint64_t *n)
{
    uint64_t at = m->written;

    *n = zq_min(m->bytes - at, room);
    zq_assert(*n && *n % ZQ_SECTOR == 0 && m->host);
    m->written += *n;
    return m->compose(m, at, buf, *n);
}

int zq_move_next(struct zq_move *m, struct zq_io *io, uint8_t *buf, uint64_t room)
{
    uint64_t at = m->host + m->written, n;
    int rc = take_piece(m, buf, room, &n);

    if (rc == 0)
        zq_io_prep_buf(io, ZQCOW2_IO_WRITE, buf, at, n);
    return rc;
}

int zq_move_write(struct zq_move *m, struct zqcow2_backend *be, uint8_t *buf, uint64_t room)
{
    int rc = 0;

    while (rc == 0 && !zq_move_is_whole(m)) {
        uint64_t at = m->host + m->written, n;

        rc = take_piece(m, buf, room, &n);
        if (rc == 0)
            rc = zq_be_write(be, buf, (size_t)n, at);
    }
    return rc;
}

/* The first barrier makes whole what the header will name; the second makes the switch final. */
int zq_move_switch(struct zqcow2_backend *be, const void *raw, size_t n, uint64_t at)
{
    int rc = zq_be_flush(be);

    zq_assert_k(R9, n && at / ZQ_SECTOR == (at + n - 1) / ZQ_SECTOR); /* whole or not at all */
    if (rc == 0)
        rc = zq_be_write(be, raw, n, at);
    return rc < 0 ? rc : zq_be_flush(be);
}
