/* SPDX-License-Identifier: MIT */
/*
 * Extensions of zone descriptors, as NVMe ZNS has them: set in a zone that is EMPTY, which is
 * CLOSED then, and kept until it is reset (R16).
 *
 * The bytes are written where no zone has any, and count by the byte in the table of states that a
 * round writes behind them. So a crash leaves all of them or none. Before, a round has taken from
 * the disk what the zone was in its last life: its pointer (R2) and its extension.
 *
 * One operation at a time reads or writes the table of extensions: several share a sector. It keeps
 * that place for its own I/O only, and waits for nothing else meanwhile.
 */
#include <errno.h>
#include "ops/describe.h"
#include "base/report.h"
#include "ops/state_table.h"
#include "round/round.h"
#include "space/admit.h"
#include "space/transfer.h"
#include "space/unmap.h"

#define CHUNK 65536u /* of the table, for one read; more if a zone has more */

enum { D_BEGIN, D_READ, D_WRITTEN, D_DURABLE };

/* ---- the table of extensions ---- */

/* First come, first served. The user of the table waits for nothing but its own I/O. */
static int table_take(struct zq_core *c, struct zq_op *op)
{
    struct zq_descriptors *d = &c->descriptors;

    if (d->user && d->user != op)
        return zq_op_park(c, op, &d->waiters);
    d->user = op;
    return 0;
}

static void table_leave(struct zq_core *c, const struct zq_op *op)
{
    struct zq_descriptors *d = &c->descriptors;

    if (d->user != op)
        return;
    zq_assert_k(R16, zq_core_is_held(c));
    d->user = NULL;
    zq_wake(&c->ready, &d->waiters);
}

/* From the start of the zone's extension on; the sectors around them are what I/O moves. */
static uint64_t place_of(const struct zq_core *c, uint32_t zone)
{
    return c->hdr.descriptors_offset + (uint64_t)zone * c->zones.g.descriptor_size;
}

static void set_sectors(const struct zq_core *c, struct zq_op *op, uint32_t zone, uint32_t zones)
{
    uint64_t end = zq_align_up(place_of(c, zone + zones), ZQ_SECTOR);

    op->own.descriptor.from = zq_align_down(place_of(c, zone), ZQ_SECTOR);
    op->own.descriptor.bytes = end - op->own.descriptor.from;
}

/* Within buf, which has what the file has from `from` on. */
static uint8_t *bytes_of(const struct zq_core *c, const struct zq_op *op, uint32_t zone)
{
    zq_assert_k(R16,
                place_of(c, zone) >= op->own.descriptor.from &&
                    place_of(c, zone + 1) <= op->own.descriptor.from + op->own.descriptor.bytes);
    return op->own.descriptor.buf + (place_of(c, zone) - op->own.descriptor.from);
}

/* Zones of one step of a get; of a set it is one. */
static uint32_t chunk_zones(const struct zq_core *c)
{
    return (uint32_t)zq_max(1, CHUNK / c->zones.g.descriptor_size);
}

/* Sectors at both ends may be of others; behind them a byte for each zone. */
static uint64_t buf_bytes(const struct zq_core *c)
{
    return (uint64_t)chunk_zones(c) * (c->zones.g.descriptor_size + 1) + 2 * ZQ_SECTOR;
}

/* Kept until the operation ends: a get of many zones uses it again for each chunk. */
static int need_buf(struct zq_core *c, struct zq_op *op)
{
    if (!op->own.descriptor.buf)
        op->own.descriptor.buf = zq_alloc(&c->hooks, 4096, buf_bytes(c));
    return op->own.descriptor.buf ? 0 : -ENOMEM;
}

static int table_io(struct zq_core *c, struct zq_op *op, uint32_t kind)
{
    return zq_op_io(c, op, kind, op->own.descriptor.buf, op->own.descriptor.from,
                    op->own.descriptor.bytes);
}

/* Also after a failure in the middle: what has been written then counts for no zone. */
void zq_release_descriptors(struct zq_core *c, struct zq_op *op)
{
    table_leave(c, op);
    zq_state_table_leave(c, op, &op->own.descriptor.making);
    if (op->own.descriptor.buf)
        zq_free(&c->hooks, op->own.descriptor.buf, buf_bytes(c));
    op->own.descriptor.buf = NULL;
    zq_release_mapping(c, op);
}

/* ---- set ---- */

/* Judged as a change of a zone is, in its turn and drained: only EMPTY zones take one. */
static int check_zone(const struct zq_core *c, uint32_t zone)
{
    const struct zq_verdict needs = {0, ZQCOW2_ZONE_CLOSED, true, false, true};
    uint32_t victim;

    if (zq_zone_state(&c->zones.v[zone]) != ZQCOW2_ZONE_EMPTY)
        return ZQCOW2_EZONE_STATE;
    return zq_zones_room(&c->zones, zone, &needs, &victim);
}

/*
 * Entered again from its top until the bytes are written: the turn keeps the zone as it is, but
 * others may take the last active resource meanwhile. What was written then is nobody's.
 */
static int gather(struct zq_core *c, struct zq_op *op, uint32_t zone)
{
    int rc = zq_turn_take(c, op, zone);

    if (rc == 0)
        rc = zq_await_drained(c, op, zone);
    if (rc == 0)
        rc = check_zone(c, zone);
    if (rc == 0)
        rc = zq_state_table_have(c, op, &op->own.descriptor.making);
    if (rc == 0)
        rc = zq_await_reset(c, op, zone);
    if (rc == 0)
        rc = need_buf(c, op);
    return rc == 0 ? table_take(c, op) : rc;
}

/* The request's elements may be cut anywhere; their sum has been checked. */
static void copy_in(const struct zq_op *op, uint8_t *to)
{
    for (uint32_t i = 0; i < op->req.iovcnt; i++) {
        if (op->req.iov[i].iov_len)
            memcpy(to, op->req.iov[i].iov_base, op->req.iov[i].iov_len);
        to += op->req.iov[i].iov_len;
    }
}

/* Its sectors are read for what they have of other zones, and written back with its bytes. */
static int write_bytes(struct zq_core *c, struct zq_op *op, uint32_t zone)
{
    switch (op->own.descriptor.phase) {
    case D_BEGIN:
        set_sectors(c, op, zone, 1);
        op->own.descriptor.phase = D_READ;
        return table_io(c, op, ZQCOW2_IO_READ);
    case D_READ:
        zq_assert_k(E1, op->has_turn && op->zone == zone);
        copy_in(op, bytes_of(c, op, zone));
        op->own.descriptor.phase = D_WRITTEN;
        return table_io(c, op, ZQCOW2_IO_WRITE);
    default: return 0;
    }
}

/* In one hold of the mutex: the next round has its bytes behind its first barrier. */
static void describe(struct zq_core *c, struct zq_op *op, uint32_t zone)
{
    zq_assert_k(R16,
                !zq_zone_was_described(&c->zones.v[zone]) && !zq_zone_is_marked(&c->zones.v[zone]));
    table_leave(c, op);
    zq_zone_set_state(&c->zones, zone, ZQCOW2_ZONE_CLOSED);
    zq_zone_store(&c->zones, zone, ZQ_STORED_CLOSED | ZQ_STORED_DESCRIBED);
    zq_turn_leave(c, op);
    op->round = 0;
    op->own.descriptor.phase = D_DURABLE;
}

int zq_step_set_descriptor(struct zq_core *c, struct zq_op *op)
{
    uint32_t zone = zq_zone_of(&c->zones, op->req.offset);
    int rc;

    if (op->own.descriptor.phase < D_DURABLE) {
        if (zone < c->zones.g.conventional)
            return ZQCOW2_EZONE_STATE;
        rc = op->rc < 0 ? op->rc : c->dead ? ZQCOW2_EDEAD : gather(c, op, zone);
        if (rc == 0)
            rc = write_bytes(c, op, zone);
        if (rc)
            return rc;
        describe(c, op, zone);
    }
    return zq_round_wait(c, op);
}

/* ---- get ---- */

/* Behind the sectors: whether each zone of the chunk had an extension when the read began. */
static uint8_t *flags_of(const struct zq_core *c, const struct zq_op *op)
{
    return op->own.descriptor.buf + buf_bytes(c) - chunk_zones(c);
}

/*
 * Which zones have one is decided when the table is this operation's: then the bytes of those are
 * in the file, and nobody writes there until they are read, for a set needs the table.
 */
static int begin_read(struct zq_core *c, struct zq_op *op, uint32_t zone)
{
    uint64_t left = (op->length - op->pos) / c->zones.g.descriptor_size;
    uint32_t n = (uint32_t)zq_min(left, chunk_zones(c));
    bool any = false;

    zq_assert_k(R16, n && zone + n <= c->zones.g.nr_zones && c->descriptors.user == op);
    for (uint32_t i = 0; i < n; i++) {
        flags_of(c, op)[i] = zq_zone_is_described(&c->zones.v[zone + i]);
        any |= flags_of(c, op)[i];
    }
    op->own.descriptor.zones = n;
    op->own.descriptor.phase = D_READ;
    set_sectors(c, op, zone, n);
    return any ? table_io(c, op, ZQCOW2_IO_READ) : 0;
}

/* What the table has of a zone without an extension is left over from others: zeros go out. */
static void copy_out(struct zq_core *c, struct zq_op *op, uint32_t zone)
{
    uint32_t size = c->zones.g.descriptor_size;

    for (uint32_t i = 0; i < op->own.descriptor.zones; i++) {
        if (!flags_of(c, op)[i])
            memset(bytes_of(c, op, zone + i), 0, size);
        zq_iov_copy_out(op, bytes_of(c, op, zone + i), size);
    }
    op->own.descriptor.phase = D_BEGIN;
}

/*
 * No turn is taken: a zone that changes meanwhile is shown as it was or as it is. In front of each
 * chunk others may use the table.
 */
int zq_step_get_descriptors(struct zq_core *c, struct zq_op *op)
{
    int rc = need_buf(c, op);

    while (rc == 0 && op->pos < op->length) {
        uint64_t at = op->pos;
        uint32_t zone = zq_zone_of(&c->zones, op->req.offset) +
                        (uint32_t)(op->pos / c->zones.g.descriptor_size);

        rc = op->rc < 0 ? op->rc : table_take(c, op);
        if (rc == 0 && op->own.descriptor.phase == D_BEGIN)
            rc = begin_read(c, op, zone);
        if (rc)
            return rc;
        copy_out(c, op, zone);
        table_leave(c, op);
        rc = zq_op_pay(c, op, (int32_t)zq_cost_of(op->pos - at, ZQ_COST_ZEROS));
    }
    return rc;
}
