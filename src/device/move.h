/* SPDX-License-Identifier: MIT */
/*
 * A table that moves. The new one is written whole, piece by piece, where nothing in the file
 * points to; behind a barrier one write within a sector of the header switches to it; behind
 * another barrier the old one may be given up (R9, R13, G1). A crash finds the old table or the
 * new one, and all that it may cost is the clusters of the other.
 *
 * A move knows where the table goes, and has the pieces made by compose(). Either it runs in the
 * loop: each piece is an io of the owner's, and a round switches. Or it runs by blocking calls.
 */
#ifndef ZQ_DEVICE_MOVE_H
#define ZQ_DEVICE_MOVE_H

#include "device/io.h"

struct zq_move {
    uint64_t host, bytes; /* where the new one goes; whole sectors */
    uint64_t written;     /* bytes of it that have gone there or are on their way */
    /* Makes bytes [at, at + n) of it; pieces come in order. An error ends the move. */
    int (*compose)(struct zq_move *m, uint64_t at, uint8_t *buf, uint64_t n);
};

/* All of it has gone there, when the last io is done. */
static inline bool zq_move_is_whole(const struct zq_move *m)
{
    return m->written == m->bytes;
}
/* Fills io in for the next piece, which is composed into buf, at most room bytes. */
int zq_move_next(struct zq_move *m, struct zq_io *io, uint8_t *buf, uint64_t room);
/* All pieces, by blocking calls. */
int zq_move_write(struct zq_move *m, struct zqcow2_backend *be, uint8_t *buf, uint64_t room);
/* Barrier, n bytes of the header, in one sector, from byte `at` on, barrier. */
int zq_move_switch(struct zqcow2_backend *be, const void *raw, size_t n, uint64_t at);

#endif
