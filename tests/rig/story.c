/* SPDX-License-Identifier: MIT */
/* Runs a scenario step by step, compares each answer with what it may be, informs the oracle. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "rig/story.h"

static struct oracle *oracle(struct rig *r)
{
    return &r->story->oracle;
}

bool st_struck(const struct rig *r)
{
    return r->fault.failed || r->heap.failed;
}

/* True: go on with what success means. */
bool st_judge(struct rig *r, int rc, const char *what, uint64_t off)
{
    if (rc && !st_struck(r))
        rig_say(r, "%s at %#llx: %d (%s) without any fault", what, (unsigned long long)off, rc,
                zqcow2_strerror(rc));
    return !rc;
}

bool st_judge_durable(struct rig *r, int rc, const char *what, uint64_t off)
{
    if (!rc && r->fault.failed_flushes != r->story->flushes_lost)
        rig_say(r, "%s at %#llx promised what a failed flush has lost", what,
                (unsigned long long)off);
    return st_judge(r, rc, what, off);
}

/* By its flags. */
static bool judge_flags(struct rig *r, int rc, unsigned flags, const char *what, uint64_t off)
{
    return flags & ZQCOW2_FUA ? st_judge_durable(r, rc, what, off) : st_judge(r, rc, what, off);
}

/* A plain image is one conventional zone to the oracle, and reports none. */
static bool is_conventional(struct rig *r, uint64_t off)
{
    return off / oracle(r)->g.zone_size < oracle(r)->g.conventional;
}

/*
 * After a failure the report shows the state of a zone: nothing, or what `may` allows. A write of
 * len bytes may have been committed only where it was the durability that failed.
 */
void st_resync(struct rig *r, uint32_t i, unsigned may, const uint8_t *data, uint64_t len)
{
    struct life *l = oracle_now(oracle(r), i);
    struct zqcow2_zone z = rig_zone(r, i);
    uint64_t wp = z.state == ZQCOW2_ZONE_FULL ? z.capacity : z.write_pointer - z.start;
    uint64_t was = l->finish ? z.capacity : l->wp;

    if (z.state == ZQCOW2_ZONE_RDONLY || z.state == ZQCOW2_ZONE_OFFLINE || wp == was)
        return;
    if ((may & MAY_EXTEND) && wp == was + len)
        oracle_wrote(oracle(r), z.start + l->wp, len, data, false);
    else if ((may & MAY_FINISH) && z.state == ZQCOW2_ZONE_FULL)
        l->finish = true;
    else if ((may & MAY_RESET) && !wp)
        oracle_reset(oracle(r), i);
    else
        rig_say(r, "after a failure zone %u is %s at +%#llx, was at +%#llx", i,
                rig_state_name(z.state), (unsigned long long)wp, (unsigned long long)was);
}

uint8_t *st_marked(struct rig *r, uint64_t len, uint64_t off)
{
    uint8_t *p = malloc(len);

    if (!p)
        abort();
    rig_pattern(p, len, off, ++r->story->tag);
    return p;
}

/* In a conventional zone a failed write may have happened, unless it failed for memory (I13). */
static void put_down(struct rig *r, int rc, unsigned flags, uint64_t off, uint64_t len,
                     const uint8_t *data)
{
    unsigned may = flags & ZQCOW2_FUA ? MAY_EXTEND : 0;

    if (!rc)
        oracle_wrote(oracle(r), off, len, data, true);
    else if (!is_conventional(r, off))
        st_resync(r, (uint32_t)(off / oracle(r)->g.zone_size), may, data, len);
    else if (rc != -ENOMEM)
        oracle_wrote(oracle(r), off, len, data, false);
    if (!rc)
        st_read(r, off, len);
}

void st_write(struct rig *r, uint64_t off, uint64_t len, unsigned flags)
{
    uint8_t *data;
    int rc;

    if (r->story->gone)
        return;
    data = st_marked(r, len, off);
    rc = zqcow2_write(r->img, data, len, off, flags);
    judge_flags(r, rc, flags, "write", off);
    put_down(r, rc, flags, off, len, data);
    free(data);
}

void st_append(struct rig *r, uint32_t zone, uint64_t len, unsigned flags)
{
    uint64_t start = rig_start(r, zone), off = start, want;
    uint8_t *data;
    int rc;

    if (r->story->gone)
        return;
    want = start + oracle_now(oracle(r), zone)->wp;
    data = st_marked(r, len, want);
    rc = zqcow2_append(r->img, data, len, &off, flags);
    if (judge_flags(r, rc, flags, "append", start) && off != want)
        rig_say(r, "append to zone %u went to +%#llx, expected +%#llx", zone,
                (unsigned long long)(off - start), (unsigned long long)(want - start));
    put_down(r, rc, flags, want, len, data);
    free(data);
}

void st_zeroes(struct rig *r, uint64_t off, uint64_t len, unsigned flags)
{
    int rc;

    if (r->story->gone)
        return;
    rc = zqcow2_write_zeroes(r->img, len, off, flags);
    judge_flags(r, rc, flags, "write_zeroes", off);
    put_down(r, rc, flags, off, len, NULL);
}

/* Whole clusters only. */
void st_discard(struct rig *r, uint64_t off, uint64_t len)
{
    uint64_t c = r->g->cluster ? r->g->cluster : 65536, from = (off + c - 1) / c * c;
    uint64_t to = (off + len) / c * c;
    int rc;

    if (r->story->gone)
        return;
    rc = zqcow2_discard(r->img, len, off, 0);
    st_judge(r, rc, "discard", off);
    if (from < to && rc != -ENOMEM)
        oracle_wrote(oracle(r), from, to - from, NULL, !rc);
}

void st_read(struct rig *r, uint64_t off, uint64_t len)
{
    uint8_t *is;
    int rc;

    if (r->story->gone)
        return;
    is = malloc(len);
    if (!is)
        abort();
    memset(is, 0xee, len);
    rc = zqcow2_read(r->img, is, len, off);
    if (st_judge(r, rc, "read", off) && !oracle_reads(oracle(r), is, len, off))
        rig_say(r, "read of %#llx at %#llx gave wrong bytes", (unsigned long long)len,
                (unsigned long long)off);
    free(is);
}

void st_flush(struct rig *r)
{
    if (!r->story->gone && st_judge_durable(r, zqcow2_flush(r->img), "flush", 0))
        oracle_flushed(oracle(r));
}

void st_drain(struct rig *r)
{
    if (!r->story->gone && st_judge_durable(r, zqcow2_drain(r->img), "drain", 0))
        oracle_flushed(oracle(r));
}

/* What success of op means for one zone. */
static void managed(struct rig *r, int op, uint32_t i)
{
    struct life *l = oracle_now(oracle(r), i);

    if (is_conventional(r, rig_start(r, i)))
        return;
    if (op == ZQCOW2_OP_ZONE_RESET && (l->wp || l->finish))
        oracle_reset(oracle(r), i);
    if (op == ZQCOW2_OP_ZONE_FINISH)
        l->finish = true;
}

void st_manage(struct rig *r, int op, uint32_t zone, uint32_t n, unsigned flags)
{
    struct zqcow2_request req = {.size = sizeof(req),
                                 .op = (uint16_t)op,
                                 .flags = (uint16_t)flags,
                                 .offset = rig_start(r, zone),
                                 .length = r->g->zone_size * n};
    int rc;

    if (r->story->gone)
        return;
    if (req.offset + req.length > r->g->size)
        req.length = r->g->size - req.offset;
    rc = zqcow2_run(r->img, &req, NULL);
    judge_flags(r, rc, flags, rig_op_name(op), req.offset);
    for (uint32_t i = zone; i < zone + n; i++) {
        if (!rc)
            managed(r, op, i);
        else if (!is_conventional(r, rig_start(r, i)))
            st_resync(r, i, MAY_RESET | MAY_FINISH, NULL, 0);
    }
}

/* Which zones "all" meant is left to the report. */
void st_all(struct rig *r, int op)
{
    struct zqcow2_request req = {.size = sizeof(req), .op = (uint16_t)op, .length = r->g->size};

    if (r->story->gone)
        return;
    st_judge(r, zqcow2_run(r->img, &req, NULL), rig_op_name(op), 0);
    for (uint32_t i = oracle(r)->g.conventional; i < oracle(r)->nr_zones; i++)
        st_resync(r, i, MAY_RESET | MAY_FINISH, NULL, 0);
}

/* With the plans laid aside: what is looked at here is what there is. */
bool st_settle(struct rig *r)
{
    uint64_t fail_at = r->fault.fail_at, calls = r->fault.calls, heap_at = r->heap.fail_at;
    bool good;

    r->fault.fail_at = r->heap.fail_at = 0;
    good = oracle_settle(oracle(r), r);
    r->fault.fail_at = fail_at;
    r->fault.calls = calls;
    r->heap.fail_at = heap_at;
    return good;
}

/* A clean close is a flush. */
void st_close(struct rig *r)
{
    int rc;

    if (r->story->gone)
        return;
    rc = rig_close(r);
    if (st_judge_durable(r, rc, "close", 0))
        oracle_flushed(oracle(r));
    else if (rc == -EBUSY)
        rig_say(r, "close: busy");
    r->story->gone = true;
}

void st_open(struct rig *r)
{
    r->story->flushes_lost = r->fault.failed_flushes;
    r->story->gone = !st_judge_durable(r, rig_open(r, true), "open", 0);
    if (!r->story->gone)
        st_settle(r);
}

void st_reopen(struct rig *r)
{
    if (r->story->gone)
        return;
    st_close(r);
    st_open(r);
}

/* The program dies while nothing is in flight: the files stay as they are. */
void st_crash(struct rig *r)
{
    struct store kept, data;

    if (r->story->gone)
        return;
    store_init(&kept);
    store_init(&data);
    store_copy(&kept, &r->store);
    if (r->g->data_file)
        store_copy(&data, &r->data.store);
    rig_close(r);
    store_copy(&r->store, &kept);
    if (r->g->data_file)
        store_copy(&r->data.store, &data);
    store_free(&kept);
    store_free(&data);
    st_open(r);
}

void st_refused(struct rig *r, int want, int op, uint64_t off, uint64_t len)
{
    struct zqcow2_request req = {
        .size = sizeof(req), .op = (uint16_t)op, .offset = off, .length = len};
    struct zqcow2_result res = {0};
    uint8_t *data;
    struct iovec v;
    int rc;

    if (r->story->gone)
        return;
    data = st_marked(r, len, off);
    v = (struct iovec){data, len};
    if (op <= ZQCOW2_OP_APPEND) {
        req.iov = &v;
        req.iovcnt = 1;
    }
    rc = zqcow2_run(r->img, &req, &res);
    if (rc != want && !st_struck(r))
        rig_say(r, "%s at %#llx: %d, expected %d", rig_op_name(op), (unsigned long long)off, rc,
                want);
    /* A fault may have kept away what it would have been refused for. */
    if (!rc && op != ZQCOW2_OP_READ)
        put_down(r, rc, 0, res.offset, len, data);
    free(data);
}
