/* SPDX-License-Identifier: MIT */
/*
 * One call on a simulated disk: the fault that hits it, its events, and what it changes.
 *
 * A call is two events, its beginning and its end, and all room for both is reserved before the
 * first: nothing can fail in between but what the test has asked for. Reads see a change from its
 * end on; the disk may have it from its beginning on.
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "simdisk/simdisk_int.h"

bool sim_power_is_off(const struct zqcow2_simdisk *d)
{
    return d->count.position >= d->off_at;
}

/* Counts down calls of the armed kinds; 1 is the one that is hit. FOREVER leaves it at 1. */
int sim_fault_hit(struct zqcow2_simdisk *d, uint32_t kind)
{
    struct zqcow2_simdisk_fault *f = &d->fault;

    if (!f->nth || !(f->kinds & 1u << kind))
        return 0;
    if (f->nth > 1) {
        f->nth--;
        return 0;
    }
    if (!(f->flags & ZQCOW2_SIMDISK_FOREVER))
        f->nth = 0;
    d->count.faults++;
    return f->error;
}

/* The limits that zqcow2_limits promises a backend; an option of 0 is no limit. */
static bool range_is_good(const struct zqcow2_simdisk *d, uint64_t off, uint64_t len)
{
    uint32_t io = d->opt.io_align ? d->opt.io_align : 1;

    return len && off <= INT64_MAX && len <= INT64_MAX - off && !((off | len) & (io - 1)) &&
           (!d->opt.max_transfer || len <= d->opt.max_transfer);
}

/* Elements must be whole blocks only where addresses must be aligned, too, as with O_DIRECT. */
static bool vector_is_good(const struct zqcow2_simdisk *d, const struct iovec *iov, int cnt)
{
    uint32_t io = d->opt.io_align ? d->opt.io_align : 1;
    uint32_t mem = d->opt.buf_align ? d->opt.buf_align : 1;

    if (cnt < 1 || (uint32_t)cnt > (d->opt.max_iov ? d->opt.max_iov : 1024))
        return false;
    for (int i = 0; i < cnt; i++) {
        if (!iov[i].iov_len || (uintptr_t)iov[i].iov_base & (mem - 1) ||
            (mem > 1 && iov[i].iov_len & (io - 1)))
            return false;
    }
    return true;
}

int sim_misuse(struct zqcow2_simdisk *d, uint32_t kind, const struct iovec *iov, int cnt,
               uint64_t off, uint64_t len)
{
    bool moves_data = kind == ZQCOW2_IO_READ || kind == ZQCOW2_IO_WRITE;
    bool good = kind == ZQCOW2_IO_FLUSH    ? true :
                kind == ZQCOW2_IO_TRUNCATE ? off <= INT64_MAX :
                                             range_is_good(d, off, len);

    if (good && (!moves_data || vector_is_good(d, iov, cnt)))
        return 0;
    d->count.misuse++;
    return -EINVAL;
}

/* Two changes of one sector in flight leave either: no caller may rely on an order (misuse). */
static void note_overlaps(struct zqcow2_simdisk *d, const struct sim_op *op)
{
    for (uint32_t i = 0; i < d->now.n; i++) {
        const struct sim_op *o = d->now.pending[i];

        if (o->ended == SIM_NEVER && o->kind != ZQCOW2_IO_TRUNCATE &&
            zq_ranges_overlap(o->offset, o->length, op->offset, op->length)) {
            d->count.misuse++;
            return;
        }
    }
}

/* A discard that scrambles leaves bytes that no test has written, other ones each time. */
static void fill(struct zqcow2_simdisk *d, struct sim_op *op, const struct iovec *iov)
{
    size_t at = 0;
    uint64_t noise = zq_random(&d->rng);

    if (op->kind == ZQCOW2_IO_DISCARD) {
        for (; at < op->alloc - sizeof(*op); at++)
            op->data[at] = (uint8_t)(noise >> at % 8 * 8 ^ at / 8);
        return;
    }
    for (size_t left = (size_t)op->length; left; iov++) {
        size_t piece = iov->iov_len < left ? iov->iov_len : left;

        if (piece)
            memcpy(op->data + at, iov->iov_base, piece);
        at += piece;
        left -= piece;
    }
}

/* Appends the event; the log's and the state's room were reserved. */
static int log_event(struct zqcow2_simdisk *d, enum sim_event_type type, struct sim_op *op)
{
    struct sim_log *l = &d->log;

    if (l->on) {
        atomic_fetch_add(&op->refs, 1);
        l->events[l->n++] = (struct sim_event){type, op};
    }
    d->count.position++;
    if (type == SIM_BEGIN)
        op->begun = d->count.position - 1;
    if (type == SIM_END)
        op->ended = d->count.position - 1;
    return sim_state_step(&d->now, type, op, d->opt.discard);
}

/* A call that fails changes nothing, or, as the fault says, all that it would have, or half. */
static struct sim_op *make_op(struct zqcow2_simdisk *d, uint32_t kind, uint64_t off, uint64_t len,
                              int fault)
{
    bool scrambles =
        kind == ZQCOW2_IO_DISCARD && d->opt.discard == ZQCOW2_SIMDISK_DISCARD_SCRAMBLES;
    struct sim_op *op;

    if (fault && (d->fault.flags & ZQCOW2_SIMDISK_SHORT) && kind == ZQCOW2_IO_WRITE)
        len = zq_align_down(len / 2, ZQ_SECTOR);
    else if (fault && !((d->fault.flags & ZQCOW2_SIMDISK_LANDS) && kind == ZQCOW2_IO_WRITE))
        len = 0;
    op = sim_op_new(&d->hooks, kind, off, len, kind == ZQCOW2_IO_WRITE || scrambles);
    if (op)
        op->empty = kind == ZQCOW2_IO_TRUNCATE ? fault != 0 : len == 0;
    return op;
}

/* The host is full: what would make the file longer fails; what lies within it does not. */
static bool too_long(const struct zqcow2_simdisk *d, uint32_t kind, uint64_t off, uint64_t len)
{
    uint64_t end = off + (kind == ZQCOW2_IO_WRITE ? len : 0);

    return d->opt.max_length && end > d->opt.max_length && end > d->view.length &&
           (kind == ZQCOW2_IO_WRITE || kind == ZQCOW2_IO_TRUNCATE);
}

/*
 * The data is copied now: the caller may change its buffer when the call is over, and a logged
 * change must never alter (S2).
 */
int sim_begin(struct zqcow2_simdisk *d, uint32_t kind, const struct iovec *iov, uint64_t off,
              uint64_t len, int fault, struct sim_op **out)
{
    struct sim_op *op;

    if (sim_power_is_off(d))
        return -EIO;
    if (too_long(d, kind, off, len))
        return -ENOSPC;
    /* Room for this event, its end, and a failed flush's losses. */
    if (sim_log_reserve(&d->log, &d->hooks, 2 + d->now.n) < 0 || sim_state_reserve(&d->now) < 0)
        return -ENOMEM;
    op = make_op(d, kind, off, len, fault);
    if (!op)
        return -ENOMEM;
    if (op->alloc > sizeof(*op))
        fill(d, op, iov);
    if (kind != ZQCOW2_IO_FLUSH && kind != ZQCOW2_IO_TRUNCATE)
        note_overlaps(d, op);
    log_event(d, SIM_BEGIN, op);
    *out = op;
    return 0;
}

/*
 * What the flush would have covered: a seeded half is lost, the rest stays pending. Linux marks
 * pages clean when their write-back has failed: no later flush brings them to the disk.
 */
static void lose(struct zqcow2_simdisk *d, const struct sim_op *flush)
{
    for (uint32_t i = 0; i < d->now.n;) {
        struct sim_op *op = d->now.pending[i];

        if (op->ended < flush->begun && zq_random(&d->rng) & 1)
            log_event(d, SIM_LOST, op);
        else
            i++;
    }
}

/*
 * If the power went off since the beginning, the change stays pending forever: a cut may keep or
 * lose it, and nobody learns which. The view gets it although the call may fail, if the fault says
 * LANDS or SHORT.
 */
int sim_end(struct zqcow2_simdisk *d, struct sim_op *op, int fault)
{
    int rc = fault;

    if (sim_power_is_off(d) || sim_log_reserve(&d->log, &d->hooks, 1 + d->now.n) < 0) {
        sim_op_put(&d->hooks, op);
        return -EIO;
    }
    if (op->kind != ZQCOW2_IO_FLUSH && !op->empty &&
        sim_op_apply(&d->view, op, 0, op->length, d->opt.discard) < 0 && !rc)
        rc = -ENOMEM;
    op->result = rc;
    if (log_event(d, SIM_END, op) < 0 && !rc)
        rc = -ENOMEM;
    if (op->kind == ZQCOW2_IO_FLUSH && rc)
        lose(d, op);
    sim_op_put(&d->hooks, op);
    return rc;
}

/* The view again from what is durable or pending: lost changes are seen no longer. */
int sim_forget_cache(struct zqcow2_simdisk *d)
{
    int rc = 0;

    sim_content_drop(&d->view);
    sim_content_copy(&d->view, &d->now.durable);
    d->view.unhashed = true;
    for (uint32_t i = 0; i < d->now.n; i++) {
        const struct sim_op *op = d->now.pending[i];

        if (op->ended != SIM_NEVER && sim_op_apply(&d->view, op, 0, op->length, d->opt.discard) < 0)
            rc = -ENOMEM;
    }
    return rc;
}
