/* SPDX-License-Identifier: MIT */
/*
 * Several threads read. What is next in the order of the device is written by a thread that has
 * nothing better to do, one at a time: sequential zones need that order, and it leaves a file in
 * it. A piece is read while those before it are being written.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>

#include "copy.h"
#include "states.h"

#define WORKERS 16u /* so many pieces are in flight, at most */

/* What is copied in one go, from the first byte to the last: a zone, or a disk without zones. */
struct region {
    uint64_t start, end;
    uint64_t from;    /* what is in front of it has been written */
    uint64_t pointer; /* where to leave the write pointer, if it is behind the last data */
    bool sequential, full;
    bool described, closed; /* has a descriptor extension; is closed, although it is empty */
    uint64_t unit;          /* pieces are multiples of this, unless the region ends */
    bool packed;            /* is to be compressed */
    bool loose;             /* in any order */
};

struct piece {
    uint64_t ticket, off, length; /* no length: the end of the region */
    struct region region;
    uint8_t *buf;
    bool read;
    uint32_t runs[ZT_CHUNK / ZT_SECTOR + 1]; /* bytes of data, of zeros, of data, ... */
};

struct copying {
    const struct zt_copy *c;
    pthread_mutex_t lock; /* of all below, except what the thread that writes owns */
    pthread_cond_t changed;
    struct piece *pieces, *spare[WORKERS];
    struct piece *taken[WORKERS]; /* by their tickets */
    unsigned spares, waiting;
    struct region region;
    uint64_t at, next_zone;
    unsigned pass;
    bool begun, failed, ended; /* ended: there is nothing more to read */
    bool writing;              /* a thread is */
    uint64_t tickets, turn;    /* given out; whose piece is written next */
    uint64_t loose;            /* pieces in flight that have no turn */
    uint64_t zone, pointer;    /* of the thread that writes: where that zone has been written to */
    struct zt_states states;
    struct zt_progress bar;
    uint64_t copied; /* of the bytes that the bar counts */
};

static bool fail(struct copying *k, const char *path, const char *what, uint64_t off, int rc)
{
    zt_progress_end(&k->bar);
    if (!k->failed)
        zt_error("%s: %s at %" PRIu64 ": %s", path, what, off, zqcow2_strerror(rc));
    k->failed = true;
    return false;
}

/* Of the target, whose zones may be the reason. */
static bool fail_write(struct copying *k, uint64_t off, int rc)
{
    const struct zt_output *to = k->c->to;
    char text[192];

    zt_progress_end(&k->bar);
    if (!k->failed)
        zt_error("%s: write at %" PRIu64 ": %s", to->target.path, off,
                 to->img ? zt_zone_reason(to->img, rc, off, text, sizeof(text)) :
                           zqcow2_strerror(rc));
    k->failed = true;
    return false;
}

/* ---- what comes next; under the lock ---- */

/* Full zones come first: filling one takes an active zone, of which those that stay use all. */
static bool in_pass(const struct copying *k, const struct zqcow2_zone *z)
{
    bool partial =
        k->c->keep && z->type == ZQCOW2_ZONE_SEQWRITE_REQ && z->state != ZQCOW2_ZONE_FULL;

    return k->pass == partial && !(partial && z->state == ZQCOW2_ZONE_EMPTY);
}

/* Of a zone of the source, if the target keeps those, or else of the target. */
static int set_region(struct copying *k, const struct zqcow2_zone *z)
{
    const struct zt_copy *c = k->c;
    struct region *r = &k->region;
    struct zqcow2_zone there;
    uint32_t nr = 1;
    int rc;

    *r = (struct region){.start = z->start, .end = z->start + z->length, .unit = 1};
    r->from = r->start;
    r->sequential = z->type == ZQCOW2_ZONE_SEQWRITE_REQ;
    r->full = c->keep && z->state == ZQCOW2_ZONE_FULL;
    r->packed = c->compress && r->full;
    if (r->packed) { /* a last cluster that the capacity cuts is not packed */
        r->unit = c->to->info.cluster_size;
        r->end = z->start + z->capacity;
    }
    r->described = c->keep && z->attributes & ZQCOW2_ZONE_DESCRIBED;
    r->closed = c->keep && z->state == ZQCOW2_ZONE_CLOSED;
    if (c->keep && r->sequential && !r->full && z->write_pointer != UINT64_MAX)
        r->pointer = z->write_pointer;
    if (c->to->dev)
        r->unit = c->to->info.block_size;
    if (!c->to->dev && !c->to->resumed)
        return 0;
    rc = zt_output_report(c->to, z->start, &there, &nr);
    if (rc < 0 || !r->sequential)
        return rc;
    r->from = there.write_pointer;
    r->described &= !(there.attributes & ZQCOW2_ZONE_DESCRIBED);
    r->closed &= there.state != ZQCOW2_ZONE_CLOSED;
    return 0;
}

/* The next zone of the target that has anything to be copied. */
static bool next_zone(struct copying *k)
{
    const struct zt_copy *c = k->c;
    uint64_t size = c->to->info.virtual_size;
    struct zqcow2_zone z;
    uint32_t nr;
    int rc;

    for (; k->pass < 2; k->pass++, k->next_zone = 0) {
        while (k->next_zone < size) {
            nr = 1;
            rc = c->keep ? zt_disk_report(c->from, k->next_zone, &z, &nr) :
                           zt_output_report(c->to, k->next_zone, &z, &nr);
            if (rc < 0)
                return fail(k, c->keep ? c->from->target.path : c->to->target.path, "report",
                            k->next_zone, rc);
            k->next_zone = z.start + z.length;
            if (in_pass(k, &z)) {
                rc = set_region(k, &z);
                return rc == 0 || fail(k, c->to->target.path, "report", z.start, rc);
            }
        }
    }
    return false;
}

static bool next_region(struct copying *k)
{
    bool first = !k->begun;
    int rc;

    k->begun = true;
    if (zt_output_zoned(k->c->to))
        return next_zone(k);
    k->region = (struct region){.end = k->c->to->info.virtual_size, .unit = 1};
    k->region.packed = k->c->compress;
    /* Compressing takes long, so several threads do it, where nothing wants an order. */
    k->region.loose = k->c->compress && !k->c->to->file.keep;
    if (k->c->compress)
        k->region.unit = k->c->to->info.cluster_size;
    rc = first && k->c->to->resumed ? zt_output_reached(k->c->to, &k->region.from) : 0;
    return rc < 0 ? fail(k, k->c->to->target.path, "map", 0, rc) : first;
}

/*
 * In whole units, of which `at` is a multiple: one that is not all zeros is data. ZT_CHUNK is a
 * multiple of every cluster size.
 */
static void round_status(const struct region *r, uint64_t at, struct zqcow2_extent *s)
{
    uint64_t left = r->end - at, rest = s->length % r->unit;

    if (s->length >= left || !rest)
        return;
    if (zt_extent_zero(s) && s->length > rest) {
        s->length -= rest;
        return;
    }
    s->kind = ZQCOW2_BLOCK_DATA;
    s->length += r->unit - rest;
    if (s->length > left)
        s->length = left;
}

/* In the region: false if there is nothing more, or it failed. */
static bool next_data(struct copying *k, struct piece *p)
{
    const struct zt_copy *c = k->c;
    bool skip = c->granule || k->region.sequential;

    while (k->at < k->region.end) {
        struct zqcow2_extent s;
        uint64_t most = ZT_CHUNK - k->at % ZT_CHUNK;
        int rc = zt_disk_status(c->from, k->at, k->region.end - k->at, &s);

        if (rc < 0)
            return fail(k, c->from->target.path, "map", k->at, rc);
        round_status(&k->region, k->at, &s);
        p->off = k->at;
        p->length = s.length;
        if (!(skip && zt_extent_zero(&s))) {
            p->length = s.length < most ? s.length : most;
            k->at += p->length;
            return true;
        }
        k->at += s.length;
        if (c->to->stale && !k->region.sequential) {
            rc = zt_output_skip(c->to, p->length, p->off);
            if (rc < 0)
                return fail_write(k, p->off, rc);
        }
    }
    return false;
}

/* What there is to be read of [off, end); an error is met again where it is read. */
static uint64_t count_data(struct copying *k, uint64_t off, uint64_t end)
{
    bool all = !k->c->granule && !zt_output_zoned(k->c->to);
    struct zqcow2_extent s;
    uint64_t bytes = all ? end - off : 0;

    for (; !all && off < end && zt_disk_status(k->c->from, off, end - off, &s) == 0;
         off += s.length)
        bytes += zt_extent_zero(&s) ? 0 : s.length;
    return bytes;
}

/* A part of it may have been copied before. */
static void begin_region(struct copying *k)
{
    const struct region *r = &k->region;

    k->at = r->from;
    if (k->bar.on && r->from > r->start)
        k->copied += count_data(k, r->start, r->from);
}

static bool in_any_order(const struct piece *p)
{
    return p->region.loose;
}

static bool next_piece(struct copying *k, struct piece *p)
{
    const char *sig = zt_signal();

    if (sig && !k->failed) {
        zt_progress_end(&k->bar);
        zt_error("%s: stopped by %s", k->c->to->target.path, sig);
        k->failed = true;
    }
    while (!k->failed) {
        bool more = k->begun && k->region.start < k->region.end;

        p->region = k->region;
        p->ticket = k->tickets;
        p->off = k->at;
        p->length = 0;
        if (more && next_data(k, p)) {
            *(in_any_order(p) ? &k->loose : &k->tickets) += 1;
            return true;
        }
        if (k->failed || (more && k->region.sequential)) {
            k->region.start = k->region.end;
            p->off = p->region.start;
            p->length = 0;
            k->tickets += !k->failed;
            return !k->failed;
        }
        if (!next_region(k))
            return false;
        begin_region(k);
    }
    return false;
}

/* ---- what was read goes out; of the thread that writes ---- */

/* In a sequential zone the bytes up to `off` are written as zeros first. */
static int move_pointer(struct copying *k, const struct region *r, uint64_t off)
{
    uint64_t from = k->pointer;
    int rc = 0;

    if (k->zone != r->start) { /* the first of it: only an empty zone takes an extension */
        from = r->from;
        rc = r->described ? zt_states_describe(&k->states, r->start) : 0;
    }
    k->zone = r->start;
    k->pointer = off > from ? off : from;
    if (rc < 0)
        return rc;
    return off > from ? zt_output_zeroes(k->c->to, off - from, from) : 0;
}

static int end_zone(struct copying *k, const struct region *r)
{
    struct zt_output *to = k->c->to;
    struct zqcow2_zone z;
    uint32_t nr = 1;
    int rc = move_pointer(k, r, r->pointer);

    if (rc == 0 && r->closed && !r->described && k->pointer == r->start && to->img)
        rc = zqcow2_zone_set_state(to->img, r->start, ZQCOW2_ZONE_CLOSED | ZQCOW2_ZONE_PERSIST);
    if (rc == 0)
        rc = zt_output_report(to, r->start, &z, &nr);
    return rc == 0 ? zt_output_end_zone(to, &z, r->full) : rc;
}

static int put_data(struct copying *k, const struct piece *p, size_t len, size_t at)
{
    uint64_t off = p->off + at;
    int rc = p->region.sequential ? move_pointer(k, &p->region, off) : 0;

    if (rc == 0)
        rc = zt_output_write(k->c->to, p->buf + at, len, off, p->region.packed);
    if (p->region.sequential)
        k->pointer = off + len;
    return rc;
}

static int put_piece(struct copying *k, const struct piece *p)
{
    size_t at = 0;
    int rc = 0;

    if (!p->length)
        return end_zone(k, &p->region);
    for (unsigned i = 0; rc == 0 && at < p->length; at += p->runs[i++]) {
        bool zeros = i % 2;

        if (!zeros && p->runs[i])
            rc = put_data(k, p, p->runs[i], at);
        else if (zeros && !p->region.sequential)
            rc = zt_output_skip(k->c->to, p->runs[i], p->off + at);
    }
    return rc;
}

/* ---- the threads ---- */

/* Where zeros are, counted in granules of the device. */
static void find_runs(const struct copying *k, struct piece *p)
{
    uint64_t granule = k->c->granule;
    size_t len = (size_t)p->length, n;
    unsigned i = 0;

    p->runs[0] = granule ? 0 : (uint32_t)len;
    for (size_t at = 0; granule && at < len; at += n) {
        uint64_t room = granule - (p->off + at) % granule;

        n = len - at < room ? len - at : (size_t)room;
        if ((zt_nonzero(p->buf + at, n) == n) != i % 2)
            p->runs[++i] = 0;
        p->runs[i] += (uint32_t)n;
    }
}

static bool can_read(const struct copying *k)
{
    return k->spares && !k->ended;
}

static bool can_write(const struct copying *k)
{
    return !k->writing && k->turn < k->tickets && k->taken[k->turn % WORKERS]->read;
}

/* Pieces are whole units, which may be more than what was counted. */
static void note_copied(struct copying *k, const struct piece *p)
{
    k->copied += p->length;
    if (!k->failed && p->length)
        zt_progress_at(&k->bar, k->copied < k->bar.total ? k->copied : k->bar.total);
}

/* Before the caller leaves the lock with what it has taken: another thread may have the rest. */
static void leave(struct copying *k)
{
    if (k->waiting && (can_read(k) || can_write(k)))
        pthread_cond_signal(&k->changed);
    pthread_mutex_unlock(&k->lock);
}

/* Entered and left under the lock. */
static void read_piece(struct copying *k, struct piece *p)
{
    bool put = in_any_order(p);
    int rc = 0, put_rc = 0;

    leave(k);
    if (p->length)
        rc = zt_disk_read(k->c->from, p->buf, (size_t)p->length, p->off);
    if (rc == 0)
        find_runs(k, p);
    if (rc == 0 && put)
        put_rc = put_piece(k, p);
    pthread_mutex_lock(&k->lock);
    if (rc < 0)
        fail(k, k->c->from->target.path, "read", p->off, rc);
    if (put_rc < 0)
        fail_write(k, p->off, put_rc);
}

/* The piece that was given back last is taken first: the caches still have its buffer. */
static void read_next(struct copying *k)
{
    struct piece *p = k->spare[k->spares - 1];

    k->ended = !next_piece(k, p);
    if (k->ended)
        return;
    k->spares--;
    p->read = false;
    if (in_any_order(p)) {
        read_piece(k, p);
        note_copied(k, p);
        k->loose--;
        k->spare[k->spares++] = p;
        return;
    }
    k->taken[p->ticket % WORKERS] = p;
    read_piece(k, p);
    p->read = true;
}

static void write_next(struct copying *k)
{
    struct piece *p = k->taken[k->turn % WORKERS];
    int rc;

    k->writing = true;
    leave(k);
    rc = put_piece(k, p);
    pthread_mutex_lock(&k->lock);
    k->writing = false;
    if (rc < 0)
        fail_write(k, p->off, rc);
    note_copied(k, p);
    k->turn++;
    k->spare[k->spares++] = p;
}

static bool is_done(const struct copying *k)
{
    return k->failed || (k->ended && k->turn == k->tickets && !k->loose);
}

static void *work(void *arg)
{
    struct copying *k = arg;

    pthread_mutex_lock(&k->lock);
    while (!is_done(k)) {
        if (can_write(k)) {
            write_next(k);
        } else if (can_read(k)) {
            read_next(k);
        } else {
            k->waiting++;
            pthread_cond_wait(&k->changed, &k->lock);
            k->waiting--;
        }
    }
    pthread_cond_broadcast(&k->changed);
    pthread_mutex_unlock(&k->lock);
    return NULL;
}

/* As many pieces as workers. One of these is the caller; fewer than asked for are no error. */
static void run_workers(struct copying *k)
{
    unsigned n = 0, most = k->c->workers < WORKERS ? k->c->workers : WORKERS;
    pthread_t threads[WORKERS];

    k->pieces = calloc(most, sizeof(*k->pieces));
    for (unsigned i = 0; k->pieces && i < most && k->spares == i; i++) {
        k->spare[k->spares] = &k->pieces[i];
        k->pieces[i].buf = zt_buffer(ZT_CHUNK);
        k->spares += k->pieces[i].buf != NULL;
    }
    if (!k->pieces)
        zt_error("convert: %s", zqcow2_strerror(-ENOMEM));
    k->failed |= k->spares < most;
    while (!k->failed && n + 1 < most && pthread_create(&threads[n], NULL, work, k) == 0)
        n++;
    (void)work(k);
    while (n)
        pthread_join(threads[--n], NULL);
    for (unsigned i = 0; k->pieces && i < most; i++)
        free(k->pieces[i].buf);
    free(k->pieces);
}

bool zt_copy(const struct zt_copy *copy)
{
    struct copying k = {.c = copy,
                        .zone = UINT64_MAX,
                        .states = {.from = copy->from, .to = copy->to, .keep = copy->keep}};
    uint64_t size = copy->to->info.virtual_size;
    int rc = zt_disk_zoned(copy->from) ? zt_states_release(&k.states) : 0;

    if (rc < 0)
        fail(&k, copy->from->target.path, "zones", 0, rc);
    k.failed |= rc > 0;
    pthread_mutex_init(&k.lock, NULL);
    pthread_cond_init(&k.changed, NULL);
    zt_progress_start(&k.bar, "convert", copy->progress ? count_data(&k, 0, size) : 0,
                      copy->progress);
    if (!k.failed)
        run_workers(&k);
    if (!k.failed)
        zt_progress_done(&k.bar);
    zt_progress_end(&k.bar);
    rc = k.failed || !copy->keep ? 0 : zt_states_restore(&k.states);
    if (rc < 0)
        fail(&k, copy->to->target.path, "states of zones", 0, rc);
    pthread_cond_destroy(&k.changed);
    pthread_mutex_destroy(&k.lock);
    zt_states_free(&k.states);
    return !k.failed;
}
