/* SPDX-License-Identifier: MIT */
#include "slot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LEN 131072u

struct slot *slots_make(struct run *r, unsigned n, bool ordered)
{
    struct slot *s = need(calloc(n, sizeof(*s)));

    for (unsigned i = 0; i < n; i++) {
        s[i].r = r;
        s[i].ordered = ordered && r->w.drive != DRIVE_MIXED;
        s[i].memory = need(aligned_alloc(4096, MAX_LEN + 8192));
        s[i].reqs = need(calloc(r->m.nz + 1, sizeof(struct req *)));
    }
    return s;
}

void slots_free(struct slot *s, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        free(s[i].memory);
        free(s[i].reqs);
    }
    free(s);
}

static void request(struct slot *s, enum zqcow2_op op, uint64_t off, uint64_t len, bool fua)
{
    memset(&s->rq, 0, sizeof(s->rq));
    s->iov[0].iov_len = 0;
    s->rq.size = sizeof(s->rq);
    s->rq.op = (uint16_t)op;
    s->rq.flags = fua ? ZQCOW2_FUA : 0;
    s->rq.offset = off;
    s->rq.length = len;
    s->rq.arg = s;
}

/* The bytes in up to eight elements of any length. */
static void vector(struct slot *s, uint64_t len, uint64_t *g)
{
    uint64_t at = 0;
    unsigned n = 0;

    s->buf = s->memory + (odds(g, 3) ? below(g, 4096) : 0);
    while (at < len) {
        uint64_t part = n == 7 || odds(g, 2) ? len - at : 1 + below(g, len - at);

        s->iov[n].iov_base = s->buf + at;
        s->iov[n++].iov_len = part;
        at += part;
    }
    s->rq.iov = s->iov;
    s->rq.iovcnt = n;
}

static void expect(struct slot *s, enum what what, uint64_t off, uint64_t len, bool fua)
{
    s->reqs[s->n++] = model_submit(&s->r->m, what, off, len, fua);
}

static bool set_flush(struct slot *s)
{
    request(s, odds(&s->r->rng, 8) ? ZQCOW2_OP_DRAIN : ZQCOW2_OP_FLUSH, 0, 0, false);
    if (s->r->w.drive != DRIVE_BLOCKING)
        s->rq.op = ZQCOW2_OP_FLUSH; /* a drain needs silence */
    s->then = s->r->m.clock;
    return true;
}

static uint64_t length_of(uint64_t most, uint64_t *g)
{
    uint64_t max = most > MAX_LEN ? MAX_LEN : most, small = max < 4096 ? max : 4096;

    return 512 * (1 + below(g, (odds(g, 3) ? max : small) / 512));
}

/* ---- outside sequential zones ---- */

static bool set_discard(struct slot *s, uint64_t start, uint64_t len, uint64_t *g, bool zeroes)
{
    uint64_t cl = s->r->w.cluster, n = len / cl, at, count;
    bool fua = odds(g, 6);

    if (!n)
        return false;
    at = below(g, n);
    count = 1 + below(g, odds(g, 8) ? n - at : n - at < 4 ? n - at : 4);
    at = start + at * cl;
    if (!model_is_free(&s->r->m, at, count * cl))
        return false;
    request(s, zeroes ? ZQCOW2_OP_WRITE_ZEROES : ZQCOW2_OP_DISCARD, at, count * cl, fua);
    expect(s, W_ZERO, at, count * cl, fua);
    return true;
}

static bool set_plain(struct slot *s, uint64_t start, uint64_t len, uint64_t *g)
{
    uint64_t n = length_of(len, g), at = start + 512 * below(g, (len - n) / 512 + 1);
    unsigned dice = (unsigned)below(g, 100);
    bool fua = odds(g, 6);

    if (dice < 14)
        return set_discard(s, start, len, g, odds(g, 2));
    if (!model_is_free(&s->r->m, at, n))
        return false;
    if (dice < 20) {
        request(s, ZQCOW2_OP_WRITE_ZEROES, at, n, fua);
        expect(s, W_ZERO, at, n, fua);
    } else if (dice < 32) {
        request(s, ZQCOW2_OP_READ, at, n, false);
        vector(s, n, g);
        s->busy_off = at;
        s->busy_len = n;
        for (uint64_t x = at / 512; x < (at + n) / 512; x++)
            s->r->m.sectors[x].busy = true;
    } else {
        request(s, ZQCOW2_OP_WRITE, at, n, fua);
        vector(s, n, g);
        expect(s, W_DATA, at, n, fua);
        stamp_all(s->buf, n, s->reqs[0]->id);
    }
    return true;
}

/* ---- sequential zones ---- */

/* A request before it in its zone, alone: a host's error would fail this one as well. */
static bool may_fail(const struct world *w)
{
    return w->fault != FAULT_NONE || w->max_active || w->max_open;
}

static bool set_write(struct slot *s, struct zone *z, uint64_t *g)
{
    uint64_t room = z->start + z->cap - z->next, n;
    unsigned dice = (unsigned)below(g, 10);
    bool fua = odds(g, 8);

    if (z->filled || !room)
        return false;
    n = length_of(odds(g, 4) ? room : room < 16384 ? room : 16384, g);
    if (odds(g, 10) && room <= MAX_LEN)
        n = room;
    if (dice < 2 && (s->ordered || !z->busy)) {
        request(s, ZQCOW2_OP_WRITE_ZEROES, z->next, n, fua);
        expect(s, W_ZERO, z->next, n, fua);
        s->reqs[0]->off = z->next - n;
        return true;
    }
    if (dice < 6 && (s->ordered || !z->busy)) {
        request(s, ZQCOW2_OP_WRITE, z->next, n, fua);
        expect(s, W_DATA, z->next, n, fua);
    } else {
        n = n > 4096 && odds(g, 2) ? 4096 : n;
        n = n > 32768 ? 32768 : n;
        if (z->cap > 2048)
            n = n > z->cap - 1024 ? z->cap - 1024 : n;
        else
            n = 512;
        request(s, ZQCOW2_OP_APPEND, z->start, n, fua);
        expect(s, W_DATA, z->next, n, fua);
        if (!s->ordered || may_fail(&s->r->w)) /* then it goes where that would have been */
            s->reqs[0]->off = ANYWHERE;
        z->appending++;
        s->zone = z;
    }
    vector(s, n, g);
    stamp_all(s->buf, n, s->reqs[0]->id);
    return true;
}

static bool set_manage(struct slot *s, struct zone *z, uint64_t *g)
{
    static const enum zqcow2_op ops[] = {ZQCOW2_OP_ZONE_RESET, ZQCOW2_OP_ZONE_RESET,
                                         ZQCOW2_OP_ZONE_RESET, ZQCOW2_OP_ZONE_FINISH,
                                         ZQCOW2_OP_ZONE_OPEN,  ZQCOW2_OP_ZONE_CLOSE};
    enum zqcow2_op op = ops[below(g, 6)];
    bool fua = odds(g, 5);

    request(s, op, z->start, z->len, fua);
    if (op == ZQCOW2_OP_ZONE_RESET)
        expect(s, W_RESET, z->start, 0, fua);
    else if (op == ZQCOW2_OP_ZONE_FINISH)
        expect(s, W_FINISH, z->start, 0, fua);
    return true;
}

static bool set_reset_all(struct slot *s, uint64_t *g)
{
    struct model *m = &s->r->m;
    bool fua = odds(g, 4);

    for (uint64_t i = 0; i < m->nz; i++) /* later requests may overtake it at later zones */
        if (m->zones[i].unsure || m->zones[i].busy)
            return false;
    s->r->alone = s;
    request(s, ZQCOW2_OP_ZONE_RESET, 0, m->size, fua);
    for (uint64_t i = 0; i < m->nz; i++)
        if (m->zones[i].seq)
            expect(s, W_RESET, m->zones[i].start, 0, fua);
    return true;
}

static bool set_zoned(struct slot *s, uint64_t *g)
{
    struct model *m = &s->r->m;
    struct zone *z = &m->zones[below(g, odds(g, 3) || m->nz < 6 ? m->nz : 6)];

    if (!z->seq)
        return set_plain(s, z->start, z->len, g);
    if (z->unsure || s->r->alone)
        return false;
    if (odds(g, 60))
        return set_reset_all(s, g);
    if (!odds(g, 5) && (s->ordered || z->busy == z->appending))
        return set_write(s, z, g);
    if (s->ordered || !z->busy)
        return set_manage(s, z, g);
    return false;
}

bool slot_begin(struct slot *s, uint64_t *g)
{
    struct run *r = s->r;

    pthread_mutex_lock(&r->lock);
    s->n = s->busy_len = 0;
    s->zone = NULL;
    r->c->requests++;
    if (odds(g, 9))
        s->used = set_flush(s);
    else
        s->used = r->m.nz ? set_zoned(s, g) : set_plain(s, 0, r->m.size, g);
    pthread_mutex_unlock(&r->lock);
    return s->used;
}

/* ---- results ---- */

static void judge_error(struct slot *s, int rc)
{
    struct run *r = s->r;
    bool ok = rc == ZQCOW2_EZONE_ACTIVE || rc == ZQCOW2_EZONE_OPEN || rc == ZQCOW2_EZONE_STATE;

    if (r->disk.off)
        return;
    if (r->w.fault == FAULT_EIO || r->w.fault == FAULT_FLUSH)
        ok = ok || rc == -EIO || rc == ZQCOW2_EDEAD;
    if (r->w.fault == FAULT_NOSPC)
        ok = ok || rc == -ENOSPC;
    /* What follows a request that failed is not where the pointer is. */
    if (s->zone || s->rq.op == ZQCOW2_OP_WRITE || s->rq.op == ZQCOW2_OP_WRITE_ZEROES)
        ok = ok || (r->m.nz && (rc == ZQCOW2_EZONE_WP || rc == ZQCOW2_EZONE_FULL ||
                                rc == ZQCOW2_EZONE_BOUNDARY));
    if (!ok)
        fail(r, &r->disk.now, "request %u at 0x%llx + 0x%llx: %s", s->rq.op,
             (unsigned long long)s->rq.offset, (unsigned long long)s->rq.length,
             zqcow2_strerror(rc));
    r->c->stopped += rc == -ENOSPC;
}

/* Every request and its result, for a run with --trace. */
static void trace(const struct slot *s, int rc)
{
    static const char *const names[] = {"read",  "write", "append", "zeroes", "discard", "flush",
                                        "drain", "open",  "close",  "finish", "reset"};

    printf("%llx %s%s 0x%llx + 0x%llx: %d\n",
           s->n ? (unsigned long long)s->reqs[0]->id & 0xffffff : 0, names[s->rq.op],
           s->rq.flags & ZQCOW2_FUA ? " fua" : "", (unsigned long long)s->rq.offset,
           (unsigned long long)(s->rq.iovcnt ? s->iov[0].iov_len : s->rq.length), rc);
}

static void end_read(struct slot *s, int rc)
{
    struct run *r = s->r;
    char text[200];

    for (uint64_t x = s->busy_off / 512; x < (s->busy_off + s->busy_len) / 512; x++)
        r->m.sectors[x].busy = false;
    if (!rc && !model_shows(&r->m, s->buf, s->busy_off, s->busy_len, text))
        fail(r, &r->disk.now, "a read: %s", text);
}

void slot_end(struct slot *s, const struct zqcow2_result *res)
{
    struct run *r = s->r;

    pthread_mutex_lock(&r->lock);
    if (r->trace)
        trace(s, res->ret);
    if (res->ret)
        judge_error(s, res->ret);
    if (!res->ret && s->zone && s->reqs[0]->off != ANYWHERE && s->reqs[0]->off != res->offset)
        fail(r, &r->disk.now, "an append went to 0x%llx instead of 0x%llx",
             (unsigned long long)res->offset, (unsigned long long)s->reqs[0]->off);
    for (uint64_t i = 0; i < s->n; i++)
        model_done(&r->m, s->reqs[i], res->ret, res->offset);
    if (s->zone)
        s->zone->appending--;
    if (s->busy_len)
        end_read(s, res->ret);
    if (!res->ret && (s->rq.op == ZQCOW2_OP_FLUSH || s->rq.op == ZQCOW2_OP_DRAIN))
        model_flushed(&r->m, s->then);
    if (r->alone == s)
        r->alone = NULL;
    s->used = false;
    pthread_mutex_unlock(&r->lock);
}
