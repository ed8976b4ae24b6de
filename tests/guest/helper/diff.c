/* SPDX-License-Identifier: MIT */
/*
 * Two zoned devices of one geometry in step: A is ours, B is null_blk. Each random operation goes
 * to both; results, reports and data must be the same, except for the differences that our
 * semantics intend. Those are named here one by one, recognised exactly, and counted.
 */
#include "helper.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* The intended differences. */
enum {
    D_CLOSE,  /* close of an EMPTY or FULL zone: we succeed and change nothing, B: an I/O error */
    D_FULL,   /* FULL by writing: we report the zone's end as write pointer, B its capacity */
    D_CLOSED, /* write, open or finish of a CLOSED zone at both limits: we close an implicitly open
                 zone to make room, B refuses */
    D_VICTIM, /* implicit close: we take the least recently written zone, B goes round */
    D_STALE,  /* at and beyond a write pointer we read as zeros, B as an earlier life left it */
    D_CONV,   /* the write pointer of a conventional zone: we report its start, B its end */
    D_COUNT
};
static const char *const difference_name[D_COUNT] = {
    "close of an EMPTY or FULL zone succeeds",
    "FULL reports the zone's end as write pointer",
    "a CLOSED zone at the active limit makes room for itself",
    "the least recently written zone is closed implicitly",
    "zeros are read at and beyond the write pointer",
    "a conventional zone's write pointer is its start"};

enum {
    OP_WRITE,
    OP_FILL,
    OP_WRITE_ASTRAY,
    OP_OPEN,
    OP_CLOSE,
    OP_FINISH,
    OP_RESET,
    OP_READ,
    OP_RESET_ALL
};
static const char *const op_name[] = {"write",  "fill",  "write astray", "open",     "close",
                                      "finish", "reset", "read",         "reset all"};

struct op {
    int kind;
    uint32_t zone, zones;
    uint64_t off, len; /* bytes */
    uint64_t key;
};

struct pair {
    struct zg_dev a, b;
    uint32_t max_open, max_active;
    uint64_t seen[D_COUNT], ops;
    unsigned char *buf, *buf_b;
    uint64_t *written; /* per zone: bytes of its present life, also when it was finished early */
};

#define BLOCK 4096u
#define CHUNK (64u * 1024) /* below both drivers' transfer limits: one request each */

static bool sequential(const struct blk_zone *z)
{
    return z->type != BLK_ZONE_TYPE_CONVENTIONAL;
}

/* ---- choosing ---- */

static struct op choose_write(struct pair *p, struct zg_rng *r, struct op o)
{
    const struct blk_zone *z = &p->a.zones[o.zone];
    uint64_t cap = z->capacity * ZG_SECTOR, wp = (z->wp - z->start) * ZG_SECTOR;

    o.kind = OP_WRITE;
    o.len = BLOCK * (1 + zg_below(r, CHUNK / BLOCK));
    o.off = z->start * ZG_SECTOR + (sequential(z) ? wp : BLOCK * zg_below(r, cap / BLOCK));
    if (sequential(z) && zg_below(r, 12) == 0) {
        o.kind = OP_WRITE_ASTRAY;
        o.off += BLOCK * (1 + zg_below(r, 4));
    } else if (sequential(z) && wp < cap && cap - wp <= CHUNK && zg_below(r, 4)) {
        o.len = cap - wp; /* exactly full; otherwise often beyond */
    }
    if (o.off + o.len > (z->start + z->len) * ZG_SECTOR)
        o.len = (z->start + z->len) * ZG_SECTOR - o.off;
    if (!o.len || o.off >= (z->start + z->len) * ZG_SECTOR) {
        o.off = z->start * ZG_SECTOR;
        o.len = BLOCK;
    }
    return o;
}

/* Zones are drawn from a small window, so that they meet again and again. */
static struct op choose(struct pair *p, struct zg_rng *r)
{
    static const int kinds[] = {OP_WRITE,  OP_WRITE, OP_WRITE, OP_WRITE, OP_WRITE,
                                OP_FILL,   OP_OPEN,  OP_OPEN,  OP_CLOSE, OP_CLOSE,
                                OP_FINISH, OP_RESET, OP_READ,  OP_READ};
    uint32_t window = p->a.nr_zones < 12 ? p->a.nr_zones : 12;
    struct op o = {.kind = kinds[zg_below(r, sizeof(kinds) / sizeof(kinds[0]))], .zones = 1};

    o.zone = (uint32_t)zg_below(r, window);
    o.key = 1 + zg_below(r, 1000);
    if (o.kind == OP_WRITE)
        return choose_write(p, r, o);
    if (o.kind == OP_READ) {
        uint64_t end = p->a.nr_zones * p->a.zone_sectors * ZG_SECTOR;

        o.off = (o.zone * p->a.zone_sectors * ZG_SECTOR + BLOCK * zg_below(r, 512)) % end;
        o.len = BLOCK * (1 + zg_below(r, 64));
        o.len = o.off + o.len > end ? end - o.off : o.len;
        return o;
    }
    if (o.kind == OP_RESET && zg_below(r, 25) == 0)
        o.kind = OP_RESET_ALL;
    else if (o.kind >= OP_OPEN && zg_below(r, 8) == 0 && o.zone + 3 <= p->a.nr_zones)
        o.zones = 2 + (uint32_t)zg_below(r, 2);
    /*
     * The kernel sends the zones of a range all at once, and requests in flight are unordered: with
     * limits, which of them finds room is not determined.
     */
    if ((p->max_open || p->max_active) && (o.kind == OP_OPEN || o.kind == OP_FINISH))
        o.zones = 1;
    return o;
}

/* ---- doing ---- */

static int fill_zone(struct pair *p, struct zg_dev *d, const struct op *o)
{
    const struct blk_zone *z = &d->zones[o->zone];
    uint64_t at = z->wp * ZG_SECTOR, end = (z->start + z->capacity) * ZG_SECTOR;
    int rc = 0;

    if (!sequential(z) || z->cond == BLK_ZONE_COND_FULL)
        return 0;
    for (; at < end && !rc; at += CHUNK) {
        size_t n = end - at < CHUNK ? (size_t)(end - at) : CHUNK;

        zg_fill(p->buf, n, o->key, at);
        rc = zg_pwrite(d->fd, p->buf, n, at);
    }
    return rc;
}

static int manage(struct zg_dev *d, const struct op *o)
{
    static const unsigned long request[] = {[OP_OPEN] = BLKOPENZONE,
                                            [OP_CLOSE] = BLKCLOSEZONE,
                                            [OP_FINISH] = BLKFINISHZONE,
                                            [OP_RESET] = BLKRESETZONE,
                                            [OP_RESET_ALL] = BLKRESETZONE};
    struct blk_zone_range range = {o->zone * d->zone_sectors, o->zones * d->zone_sectors};

    if (o->kind == OP_RESET_ALL)
        range = (struct blk_zone_range){0, d->nr_zones * d->zone_sectors};
    return ioctl(d->fd, request[o->kind], &range) ? -errno : 0;
}

static int do_op(struct pair *p, struct zg_dev *d, const struct op *o, void *buf)
{
    switch (o->kind) {
    case OP_WRITE:
    case OP_WRITE_ASTRAY:
        zg_fill(p->buf, o->len, o->key, o->off);
        return zg_pwrite(d->fd, p->buf, o->len, o->off);
    case OP_FILL: return fill_zone(p, d, o);
    case OP_READ: return zg_pread(d->fd, buf, o->len, o->off);
    default: return manage(d, o);
    }
}

/* ---- judging ---- */

static unsigned count_cond(const struct zg_dev *d, unsigned cond)
{
    unsigned n = 0;

    for (uint32_t i = 0; i < d->nr_zones; i++)
        n += d->zones[i].cond == cond;
    return n;
}

static bool at_limits(const struct pair *p, const struct zg_dev *d)
{
    unsigned open = count_cond(d, BLK_ZONE_COND_IMP_OPEN) + count_cond(d, BLK_ZONE_COND_EXP_OPEN);
    unsigned active = open + count_cond(d, BLK_ZONE_COND_CLOSED);

    return p->max_open && open >= p->max_open && p->max_active && active >= p->max_active &&
           count_cond(d, BLK_ZONE_COND_IMP_OPEN);
}

/* Which difference, judged by B's zones before the operation, explains A's 0 against B's error? */
static int explain(const struct pair *p, const struct op *o, int b)
{
    for (uint32_t i = o->zone; i < o->zone + o->zones; i++) {
        unsigned cond = p->b.zones[i].cond;

        if (o->kind == OP_CLOSE && b == -EIO &&
            (cond == BLK_ZONE_COND_EMPTY || cond == BLK_ZONE_COND_FULL))
            return D_CLOSE;
        if ((o->kind == OP_WRITE || o->kind == OP_FILL || o->kind == OP_OPEN ||
             o->kind == OP_FINISH) &&
            b == -ETOOMANYREFS && at_limits(p, &p->b) &&
            (cond == BLK_ZONE_COND_CLOSED || o->zones > 1))
            return D_CLOSED;
    }
    return -1;
}

static void print_op(const struct op *o)
{
    if (o->len)
        printf("%s at %llu, %llu bytes (zone %u)", op_name[o->kind], (unsigned long long)o->off,
               (unsigned long long)o->len, o->zone);
    else
        printf("%s zone %u, %u zones", op_name[o->kind], o->zone, o->zones);
}

static void print_zone(const char *who, const struct blk_zone *z)
{
    printf("  %s: start %llu len %llu cap %llu wp +%llu type %u cond %u\n", who,
           (unsigned long long)z->start, (unsigned long long)z->len,
           (unsigned long long)z->capacity, (unsigned long long)(z->wp - z->start), z->type,
           z->cond);
}

static bool open_or_closed(unsigned cond)
{
    return cond == BLK_ZONE_COND_IMP_OPEN || cond == BLK_ZONE_COND_CLOSED;
}

static bool zone_equal(struct pair *p, uint32_t i, bool *victim)
{
    const struct blk_zone *a = &p->a.zones[i], *b = &p->b.zones[i];
    bool full = a->cond == BLK_ZONE_COND_FULL && b->cond == a->cond;

    if (a->start != b->start || a->len != b->len || a->capacity != b->capacity ||
        a->type != b->type)
        return false;
    if (!sequential(a) && a->wp == a->start && b->wp == b->start + b->len)
        p->seen[D_CONV]++;
    else if (full && a->wp == a->start + a->len && b->wp == b->start + b->capacity &&
             a->wp != b->wp)
        p->seen[D_FULL]++;
    else if (a->wp != b->wp)
        return false;
    if (a->cond == b->cond)
        return true;
    *victim = true;
    return p->max_open && open_or_closed(a->cond) && open_or_closed(b->cond);
}

/* Zones that are open on one device and closed on the other are closed on both. */
static bool close_both(struct pair *p)
{
    for (uint32_t i = 0; i < p->a.nr_zones; i++) {
        const struct blk_zone *a = &p->a.zones[i], *b = &p->b.zones[i];
        struct op close = {.kind = OP_CLOSE, .zone = i, .zones = 1};

        if (a->cond != b->cond && open_or_closed(a->cond) && open_or_closed(b->cond) &&
            (manage(&p->a, &close) || manage(&p->b, &close)))
            return false;
    }
    return !zg_report(&p->a) && !zg_report(&p->b);
}

/*
 * Implicit close took different zones: as many are open on both, and closing those zones on both
 * makes them the same again, so that one difference does not become many.
 */
static bool same_victims(struct pair *p)
{
    if (count_cond(&p->a, BLK_ZONE_COND_IMP_OPEN) != count_cond(&p->b, BLK_ZONE_COND_IMP_OPEN)) {
        printf("the numbers of open zones differ:");
        for (uint32_t i = 0; i < p->a.nr_zones; i++)
            if (p->a.zones[i].cond != p->b.zones[i].cond)
                printf(" zone %u: ours %u, null_blk %u;", i, p->a.zones[i].cond,
                       p->b.zones[i].cond);
        printf("\n");
        return false;
    }
    p->seen[D_VICTIM]++;
    return close_both(p);
}

static bool reports_equal(struct pair *p)
{
    bool same = true, victim = false;

    if (zg_report(&p->a) || zg_report(&p->b))
        return false;
    for (uint32_t i = 0; i < p->a.nr_zones; i++) {
        if (zone_equal(p, i, &victim))
            continue;
        printf("zone %u differs:\n", i);
        print_zone("ours    ", &p->a.zones[i]);
        print_zone("null_blk", &p->b.zones[i]);
        same = false;
    }
    return same && (!victim || same_victims(p));
}

/*
 * After a difference in results, the zones that the operation touched start afresh on both, and a
 * zone that only ours closed to make room is closed on both.
 */
static bool settle(struct pair *p, const struct op *o)
{
    for (uint32_t i = o->zone; i < o->zone + o->zones; i++) {
        struct op reset = {.kind = OP_RESET, .zone = i, .zones = 1};

        if (sequential(&p->a.zones[i]) && (manage(&p->a, &reset) || manage(&p->b, &reset)))
            return false;
    }
    return !zg_report(&p->a) && !zg_report(&p->b) && close_both(p);
}

static void note_written(struct pair *p, const struct op *o, bool was_full)
{
    bool write = o->kind == OP_WRITE || o->kind == OP_FILL;

    for (uint32_t i = 0; i < p->a.nr_zones; i++) {
        const struct blk_zone *z = &p->a.zones[i];

        if (!sequential(z))
            p->written[i] = z->len * ZG_SECTOR;
        else if (z->cond != BLK_ZONE_COND_FULL)
            p->written[i] = (z->wp - z->start) * ZG_SECTOR;
        else if (write && i == o->zone && !was_full)
            p->written[i] = z->capacity * ZG_SECTOR;
    }
}

/* What was written is the same; what was not is zero on ours. */
static bool data_equal(struct pair *p, const struct op *o)
{
    uint64_t zone_bytes = p->a.zone_sectors * ZG_SECTOR;
    bool stale = false;

    for (uint64_t i = 0; i < o->len; i++) {
        uint64_t at = o->off + i, zone = at / zone_bytes;

        if (p->buf[i] == p->buf_b[i])
            continue;
        if (at % zone_bytes < p->written[zone] || p->buf[i])
            return false;
        stale = true;
    }
    p->seen[D_STALE] += stale;
    return true;
}

static bool step(struct pair *p, struct zg_rng *r)
{
    struct op o = choose(p, r);
    bool was_full = p->a.zones[o.zone].cond == BLK_ZONE_COND_FULL;
    int a = do_op(p, &p->a, &o, p->buf), b, why;

    if (o.kind == OP_READ) {
        b = do_op(p, &p->b, &o, p->buf_b);
        if (a == b && (a || data_equal(p, &o)))
            return true;
        print_op(&o);
        printf(": data differs, or results %d and %d\n", a, b);
        return false;
    }
    b = do_op(p, &p->b, &o, NULL);
    if (a != b) {
        why = a ? -1 : explain(p, &o, b);
        if (why < 0) {
            print_op(&o);
            printf(": ours says %s, null_blk %s\n", a ? strerror(-a) : "success",
                   b ? strerror(-b) : "success");
            print_zone("before, ours    ", &p->a.zones[o.zone]);
            print_zone("before, null_blk", &p->b.zones[o.zone]);
            return false;
        }
        p->seen[why]++;
        was_full = true; /* the zone starts afresh */
    }
    if ((a == b || settle(p, &o)) && reports_equal(p)) {
        note_written(p, &o, was_full);
        return true;
    }
    print_op(&o);
    printf(": the reports differ\n");
    return false;
}

static uint32_t limit(const char *dev, const char *which)
{
    const char *name = strrchr(dev, '/');
    char path[128];
    uint32_t v = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/sys/block/%s/queue/%s", name ? name + 1 : dev, which);
    f = fopen(path, "r");
    if (f && fscanf(f, "%u", &v) != 1)
        v = 0;
    if (f)
        fclose(f);
    return v;
}

int zg_diff(int argc, char **argv)
{
    struct pair p = {.buf = zg_buffer(8 * CHUNK), .buf_b = zg_buffer(8 * CHUNK)};
    uint64_t seed, n;

    if (argc != 4) {
        fprintf(stderr, "usage: zqguest diff OURS NULL_BLK SEED OPERATIONS\n");
        return 2;
    }
    if (zg_open_dev(&p.a, argv[0]) || zg_open_dev(&p.b, argv[1]))
        return 2;
    if (p.a.nr_zones != p.b.nr_zones || p.a.zone_sectors != p.b.zone_sectors) {
        printf("the geometries differ\n");
        return 1;
    }
    if (manage(&p.a, &(struct op){.kind = OP_RESET_ALL}) ||
        manage(&p.b, &(struct op){.kind = OP_RESET_ALL}) || zg_report(&p.a) || zg_report(&p.b))
        return 2;
    p.written = calloc(p.a.nr_zones, sizeof(*p.written));
    if (!p.written)
        return 2;
    seed = zg_number(argv[2]);
    n = zg_number(argv[3]);
    p.max_open = limit(argv[0], "max_open_zones");
    p.max_active = limit(argv[0], "max_active_zones");
    for (; p.ops < n; p.ops++) {
        struct zg_rng r = zg_step_rng(seed, p.ops);

        if (!step(&p, &r)) {
            printf("at operation %llu of seed %llu\n", (unsigned long long)p.ops,
                   (unsigned long long)seed);
            return 1;
        }
    }
    printf("%llu operations, 0 unexplained differences\n", (unsigned long long)n);
    for (int i = 0; i < D_COUNT; i++)
        printf("intended: %s: %llu\n", difference_name[i], (unsigned long long)p.seen[i]);
    return 0;
}
