/* SPDX-License-Identifier: MIT */
/*
 * A cut of a faults backend: which parts of the held changes survive a loss of power. Each choice
 * takes the next random number of the seed, so a cut depends on the seed and on what is held alone.
 */
#include <errno.h>
#include <inttypes.h>

#include "backend/faults_int.h"
#include "base/bytes.h"
#include "base/random.h"

#define HOW_MASK  0xffu
#define UNITS_MAX 65536u /* of one change; each may become a call of the inner backend */

struct cut {
    struct zqcow2_faults *f;
    uint64_t rng;
    uint32_t how;    /* without REORDER */
    uint32_t chance; /* of 256 that a unit survives */
    uint64_t unit;   /* 0: changes are not torn */
};

/* Sorts by 32 random bits, one bit at a time: it needs no memory. */
static void shuffle(struct zq_list *held, uint64_t *rng)
{
    for (unsigned bit = 0; bit < 32; bit++) {
        struct zq_list late;

        zq_list_init(&late);
        for (struct zq_list *l = held->next, *next; l != held; l = next) {
            next = l->next;
            if (!(zq_random(rng) & 1))
                continue;
            zq_list_del(l);
            zq_list_push(&late, l);
        }
        zq_list_splice(held, &late);
    }
}

/* Draws only where there is a choice. */
static bool survives(struct cut *c)
{
    switch (c->how) {
    case ZQCOW2_FAULTS_LOSE_ALL: return false;
    case ZQCOW2_FAULTS_KEEP_ALL: return true;
    default: return zq_random(&c->rng) % 256 < c->chance;
    }
}

/* Half of the changes that could be torn are not. */
static uint64_t unit_of(struct cut *c, const struct zq_held *h)
{
    uint64_t unit = c->unit;

    if (!unit || h->kind == ZQCOW2_IO_TRUNCATE || zq_random(&c->rng) & 1)
        return 0;
    while (h->length / unit >= UNITS_MAX)
        unit *= 2;
    return unit;
}

/* *kept: how many bytes of the change inner has got. */
static int keep_units(struct cut *c, const struct zq_held *h, uint64_t unit, uint64_t *kept)
{
    uint64_t end = h->offset + h->length;
    int rc = 0;

    for (uint64_t at = h->offset, next; at < end && rc == 0; at = next) {
        next = zq_min(zq_align_down(at, unit) + unit, end);
        if (!survives(c))
            continue;
        rc = zq_held_apply(c->f, h, at, next);
        *kept += next - at;
    }
    return rc;
}

static int keep(struct cut *c, const struct zq_held *h)
{
    uint64_t kept = 0, unit = unit_of(c, h);
    const char *fate = "lost";
    int rc = 0;

    if (unit) {
        rc = keep_units(c, h, unit, &kept);
        fate = "torn";
    } else if (survives(c)) {
        rc = zq_held_apply(c->f, h, h->offset, h->offset + h->length);
        kept = h->length;
        fate = "kept";
    }
    zq_faults_say(c->f,
                  "cut: %s %" PRIu64 ", %" PRIu64 " bytes at %" PRIu64 ": %s, %" PRIu64 " kept",
                  zq_faults_kind(h->kind), h->number, h->length, h->offset, fate, kept);
    return rc;
}

/* Every change is gone afterwards, whatever inner returns: this is a loss of power. */
static int lose_power(struct zqcow2_faults *f, struct cut *c, bool reorder)
{
    int rc = 0, now;

    if (reorder)
        shuffle(&f->held, &c->rng);
    while (!zq_list_empty(&f->held)) {
        struct zq_held *h = zq_container(f->held.next, struct zq_held, link);

        now = keep(c, h);
        rc = rc ? rc : now;
        zq_held_drop(f, h);
    }
    f->off = true;
    now = zqcow2_backend_flush(f->inner);
    rc = rc ? rc : now;
    now = zqcow2_backend_length(f->inner, &f->length);
    return rc ? rc : now;
}

/* Never below what the limits that the backend reports promise not to tear. */
static uint64_t unit_bytes(const struct zqcow2_limits *l, uint32_t how)
{
    uint64_t unit = how == ZQCOW2_FAULTS_TORN_512 ? 512 : how == ZQCOW2_FAULTS_TORN_4096 ? 4096 : 0;

    return unit ? zq_max(unit, zq_max(l->io_align, l->atomic_write)) : 0;
}

/*
 * Some cuts lose nearly everything and some nearly nothing: with an even chance for each of many
 * changes, such outcomes would never be seen.
 */
int zqcow2_faults_cut(struct zqcow2_faults *f, uint64_t seed, uint32_t how)
{
    static const uint32_t chances[] = {16, 128, 240};
    struct cut c = {.f = f, .rng = seed, .how = how & HOW_MASK};
    bool reorder = how & ZQCOW2_FAULTS_REORDER;
    int rc = -EIO;

    if (!f || how & ~(HOW_MASK | ZQCOW2_FAULTS_REORDER) || c.how > ZQCOW2_FAULTS_TORN_4096)
        return -EINVAL;
    c.chance = chances[zq_random(&c.rng) % 3];
    c.unit = unit_bytes(&f->limits, c.how);
    pthread_mutex_lock(&f->lock);
    if (!f->off) {
        zq_faults_say(f, "cut: seed %" PRIu64 ", how %" PRIu32 ", %" PRIu64 " changes held", seed,
                      how, f->nr_held);
        rc = lose_power(f, &c, reorder);
    }
    pthread_mutex_unlock(&f->lock);
    return rc;
}

void zqcow2_faults_restore(struct zqcow2_faults *f)
{
    pthread_mutex_lock(&f->lock);
    if (f->off)
        zq_faults_say(f, "restore: %" PRIu64 " bytes", f->length);
    f->off = false;
    pthread_mutex_unlock(&f->lock);
}
