/* SPDX-License-Identifier: MIT */
/*
 * Unmaps whole clusters. What the entries held goes into the quarantine (R5). The records for it,
 * the mark and tables of the image's own can be had beforehand, so that a request fails for memory
 * or space before it has changed anything (I13). A record is taken from op->spare in the same hold
 * of the mutex that clears the entries: no cluster is ever without an entry, a record or an owner.
 */
#include <errno.h>
#include "space/unmap.h"
#include "base/report.h"
#include "space/admit.h"
#include "space/fill.h"

/*
 * A request that has prepared finds one here. Others allocate now, and fail before the entry
 * changes.
 */
static struct zq_freed *take_record(struct zq_core *c, struct zq_op *op)
{
    struct zq_list *n = zq_list_pop(&op->spare);

    if (!n)
        return zq_record_new(&c->alloc);
    zq_assert(op->nr_spare);
    op->nr_spare--;
    return zq_container(n, struct zq_freed, link);
}

static void keep_record(struct zq_op *op, struct zq_freed *f)
{
    zq_list_push(&op->spare, &f->link);
    op->nr_spare++;
}

static void drop_records(struct zq_core *c, struct zq_op *op)
{
    for (struct zq_list *n; (n = zq_list_pop(&op->spare));)
        zq_record_drop(&c->alloc, zq_container(n, struct zq_freed, link));
    op->nr_spare = 0;
}

/* ---- beforehand ---- */

/* What an error leaves is freed with the operation, by zq_release_mapping(). */
static int take_records(struct zq_core *c, struct zq_op *op, uint32_t n)
{
    c->left -= (int32_t)(n * ZQ_COST_RECORD);
    while (n--) {
        struct zq_freed *f = zq_record_new(&c->alloc);

        if (!f)
            return -ENOMEM;
        keep_record(op, f);
    }
    return 0;
}

/*
 * The slice of `at`, in a table that may be changed: a shared one is copied first, and a missing
 * one made where zeros must hide a source (S4). NULL: there is nothing to change up to end. Every
 * entry up to there may be unlinked: else what is freed, and becomes a hole, could be anything.
 */
static int own_slice(struct zq_core *c, struct zq_op *op, uint64_t at, uint64_t end,
                     enum zq_unlink leave, struct zq_slice **s)
{
    uint64_t next;
    int rc = 0;

    zq_assert_k(E3, at < end && end <= zq_map_slice_end(&c->map, at));
    if (zq_map_may_hold(&c->map, at, &next)) {
        rc = zq_map_slice(&c->map, &op->g, at, s);
        if (rc)
            return rc;
        if (zq_map_is_unlinked(&c->map, *s, at, end, leave)) {
            *s = NULL;
            return 0;
        }
        rc = zq_map_check(&c->map, *s, at, end);
    }
    if (rc == 0)
        rc = zq_may_allocate(c, op);
    if (rc == 0)
        rc = zq_map_table(&c->map, &op->g, at);
    return rc ? rc : zq_map_slice(&c->map, &op->g, at, s);
}

/* Nothing is mapped at `at`, and nothing below shows: up to *next, that is as it should be. */
static bool is_done(const struct zq_core *c, uint64_t at, enum zq_unlink leave, uint64_t *next)
{
    return !zq_map_may_hold(&c->map, at, next) &&
           (leave == ZQ_LEAVE_NOTHING || !zq_map_masks(&c->map, at));
}

typedef int zq_slice_work(struct zq_core *c, struct zq_op *op, uint64_t *at, uint64_t end,
                          enum zq_unlink leave);

/*
 * `work` on each slice of [*at, end) that has something to do. Behind each, another portion may
 * have to begin (E7).
 */
static int each_slice(struct zq_core *c, struct zq_op *op, uint64_t *at, uint64_t end,
                      enum zq_unlink leave, zq_slice_work *work)
{
    int rc = 0;

    while (rc == 0 && *at < end) {
        uint64_t next;
        bool done = is_done(c, *at, leave, &next);

        if (done)
            *at = zq_min(next, end);
        else
            rc = work(c, op, at, end, leave);
        if (rc == 0 && *at < end)
            rc = zq_op_pay(c, op, done ? ZQ_COST_LOOK : ZQ_COST_SLICE);
    }
    return rc;
}

static int prepare_slice(struct zq_core *c, struct zq_op *op, uint64_t *at, uint64_t end,
                         enum zq_unlink leave)
{
    struct zq_slice *s;
    int rc;

    end = zq_min(end, zq_map_slice_end(&c->map, *at));
    rc = own_slice(c, op, *at, end, leave, &s);
    if (rc == 0 && s)
        zq_count_slice(c, op, *at);
    if (rc == 0 && s)
        rc = take_records(c, op, zq_map_count_runs(&c->map, s, *at, end, leave));
    if (rc)
        return rc;
    zq_cache_release(&c->cache, &op->g);
    *at = end;
    return 0;
}

/*
 * Slice by slice: *at moves only behind a slice whose records are all there, so a wait repeats one
 * slice at most. The counts stay right because the request owns the range (R14).
 */
int zq_unmap_prepare(struct zq_core *c, struct zq_op *op, uint64_t *at, uint64_t end,
                     enum zq_unlink leave)
{
    return each_slice(c, op, at, end, leave, prepare_slice);
}

/* ---- at last ---- */

/*
 * In a data file a cluster is found by its place, and stays there: what is kept are the whole
 * clusters of the device that were unmapped. Not of sequential zones, which a reset punches.
 */
static void set_external(struct zq_core *c, struct zq_freed *f, uint64_t from, uint64_t to)
{
    uint64_t size = (uint64_t)1 << c->cluster_bits;

    from = zq_align_up(from, size);
    to = zq_min(zq_align_down(to, size), zq_align_up(c->seq_start, size));
    f->cluster = from >> c->cluster_bits;
    f->count = to > from ? (to - from) >> c->cluster_bits : 0;
}

/* One host run: the entries, and the record of what they held, in one hold. */
static int unmap_run(struct zq_core *c, struct zq_op *op, struct zq_slice *s, uint64_t *at,
                     uint64_t end, enum zq_unlink leave)
{
    struct zq_freed *f = take_record(c, op);
    uint64_t from = *at;

    if (!f)
        return -ENOMEM;
    zq_assert_k(R12, c->marked); /* a crash finds the mark, and what leaks */
    c->left -= ZQ_COST_RECORD;
    *at = zq_map_unlink(&c->map, s, *at, end, leave, f);
    if (c->map.form.external && leave != ZQ_LEAVE_PLACE)
        set_external(c, f, from, *at);
    if (!f->count)
        keep_record(op, f);
    else if (c->map.form.external)
        zq_alloc_quarantine_external(&c->alloc, f, c->data->data_seq);
    else
        zq_alloc_quarantine(&c->alloc, f, true);
    return 0;
}

static int unmap_slice(struct zq_core *c, struct zq_op *op, uint64_t *at, uint64_t end,
                       enum zq_unlink leave)
{
    struct zq_slice *s;
    int rc;

    end = zq_min(end, zq_map_slice_end(&c->map, *at));
    rc = own_slice(c, op, *at, end, leave, &s);
    if (rc == 0 && s)
        rc = zq_cache_writable(&c->cache, &op->g, s, NULL);
    if (rc)
        return rc;
    while (s && rc == 0 && *at < end)
        rc = unmap_run(c, op, s, at, end, leave);
    if (rc == 0)
        zq_cache_release(&c->cache, &op->g);
    *at = rc == 0 ? end : *at;
    return rc;
}

int zq_unmap(struct zq_core *c, struct zq_op *op, uint64_t *at, uint64_t end, enum zq_unlink leave)
{
    return each_slice(c, op, at, end, leave, unmap_slice);
}

void zq_release_mapping(struct zq_core *c, struct zq_op *op)
{
    if (op->has_turn)
        zq_turn_leave(c, op);
    zq_closing_drop(c, op);
    zq_fills_drop(c, op);
    drop_records(c, op);
}
