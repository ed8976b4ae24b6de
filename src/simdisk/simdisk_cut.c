/* SPDX-License-Identifier: MIT */
/*
 * Power cuts: a position of the log, its crash states by number, and the disk that each leaves.
 *
 * Invariant: a number always means the same state, for it is all that a replay has. So the choice
 * depends on the number, the position, the changes that are pending there and the seed, and on
 * nothing that happened before. First come the subsets of whole changes, then one torn change
 * among others that share one fate, then everything torn at once. Small numbers of changes are
 * enumerated in full; above that, the subsets that break real protocols most often (prefixes,
 * single losses, single survivors, lost pairs), and random ones.
 *
 * A cut owns a copy of the state at its position. The images that it builds are the caller's, and
 * outlive it and the disk.
 */
#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "simdisk/simdisk_int.h"

#define ALL_SUBSETS 10u /* up to so many changes: every subset */
#define PAIRS       32u /* up to so many: every omission of two */
#define SEEDED      64u /* seeded subsets above that */
#define TORN_CUTS   16u /* up to so many units: every cut */
#define TORN_MASKS  8u  /* seeded masks of a change that can tear */
#define TORN_AROUND 3u  /* the other changes: lost, earlier kept, all kept */
#define TORN_ALL    16u /* states in which everything tears by seed */

struct zqcow2_simdisk_cut {
    struct zqcow2_simdisk *disk; /* borrowed: for its log, its options and its hooks */
    struct sim_state state;
    uint64_t position;
};

/* A state to build: which units of which change survive. */
struct choice {
    uint64_t k; /* index into the part that is meant */
    enum { SUBSET, TORN, TORN_EACH } part;
    uint32_t torn, around; /* TORN: which change, and the fate of the others */
};

/*
 * Stands at the beginning of the log, or, without one, at the present, from which it cannot move.
 */
int zqcow2_simdisk_cut_new(struct zqcow2_simdisk *d, struct zqcow2_simdisk_cut **out)
{
    struct zqcow2_simdisk_cut *c = zq_zalloc(&d->hooks, sizeof(*c));
    int rc;

    if (!c)
        return -ENOMEM;
    c->disk = d;
    sim_state_init(&c->state, &d->hooks);
    pthread_mutex_lock(&d->lock);
    d->cuts++;
    c->position = d->log.on ? d->log.first : d->count.position;
    rc = sim_state_copy(&c->state, d->log.on ? &d->log.base : &d->now);
    pthread_mutex_unlock(&d->lock);
    if (rc < 0)
        zqcow2_simdisk_cut_free(c);
    else
        *out = c;
    return rc;
}

void zqcow2_simdisk_cut_free(struct zqcow2_simdisk_cut *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->disk->lock);
    c->disk->cuts--;
    pthread_mutex_unlock(&c->disk->lock);
    sim_state_drop(&c->state);
    zq_free(&c->disk->hooks, c, sizeof(*c));
}

/* Events are not undone: an earlier position is reached again from the log's beginning. */
static int rewind_to(struct zqcow2_simdisk_cut *c, uint64_t position)
{
    const struct sim_log *l = &c->disk->log;

    if (position == c->position)
        return 0;
    if (!l->on || position < l->first || position - l->first > l->n)
        return -ENOENT;
    if (position > c->position)
        return 0;
    sim_state_drop(&c->state);
    c->position = l->first;
    return sim_state_copy(&c->state, &l->base);
}

/* Costs what lies between: a test that visits all positions should visit them in order. */
int zqcow2_simdisk_cut_seek(struct zqcow2_simdisk_cut *c, uint64_t position)
{
    const struct sim_log *l = &c->disk->log;
    int rc;

    pthread_mutex_lock(&c->disk->lock);
    rc = rewind_to(c, position);
    while (rc == 0 && c->position < position) {
        const struct sim_event *e = &l->events[c->position - l->first];

        rc = sim_state_step(&c->state, e->type, e->op, c->disk->opt.discard);
        c->position++;
    }
    pthread_mutex_unlock(&c->disk->lock);
    return rc;
}

uint64_t zqcow2_simdisk_cut_position(const struct zqcow2_simdisk_cut *c)
{
    return c->position;
}

uint32_t zqcow2_simdisk_cut_pending(const struct zqcow2_simdisk_cut *c)
{
    return c->state.n;
}

int zqcow2_simdisk_cut_op(const struct zqcow2_simdisk_cut *c, uint32_t i,
                          struct zqcow2_simdisk_op *out)
{
    struct zqcow2_simdisk_op op;

    if (i >= c->state.n)
        return -EINVAL;
    sim_op_describe(c->state.pending[i], c->disk->opt.atomic_write, &op);
    return zq_return_sized(out, &op, sizeof(op), sizeof(size_t));
}

/*
 * More than ALL_SUBSETS changes: nothing, everything, then for each change the prefix before it,
 * its loss alone and its survival alone; each pair lost; seeded subsets. in_subset() decodes this
 * order.
 */
static uint64_t subset_states(uint32_t n)
{
    uint64_t pairs = n <= PAIRS ? (uint64_t)n * (n - 1) / 2 : 0;

    return n <= ALL_SUBSETS ? UINT64_C(1) << n : 2 + 3 * (uint64_t)n + pairs + SEEDED;
}

static uint64_t units_of(const struct zqcow2_simdisk_cut *c, uint32_t i)
{
    return sim_op_units(c->state.pending[i], c->disk->opt.atomic_write);
}

/* Ways in which a change tears, with the others in one fate. */
static uint64_t tears(uint64_t units)
{
    if (units < 2)
        return 0;
    return (units <= TORN_CUTS ? units - 1 : TORN_CUTS) + (units > 2 ? TORN_MASKS : 0);
}

/* Linear in the number of changes above PAIRS of them, so that a campaign can visit all states. */
uint64_t zqcow2_simdisk_cut_states(const struct zqcow2_simdisk_cut *c)
{
    uint64_t sum = subset_states(c->state.n), torn = 0;

    for (uint32_t i = 0; i < c->state.n; i++)
        torn += tears(units_of(c, i)) * TORN_AROUND;
    return sum + torn + (torn ? TORN_ALL : 0);
}

/* The order of the parts may only be changed together with every number that a test has stored. */
static int choose(const struct zqcow2_simdisk_cut *c, uint64_t k, struct choice *out)
{
    uint64_t subsets = subset_states(c->state.n);

    *out = (struct choice){.k = k, .part = SUBSET};
    if (k < subsets)
        return 0;
    if (k >= zqcow2_simdisk_cut_states(c))
        return -EINVAL;
    k -= subsets;
    out->part = TORN;
    for (uint32_t i = 0; i < c->state.n; i++) {
        uint64_t here = tears(units_of(c, i)) * TORN_AROUND;

        if (k < here) {
            out->torn = i;
            out->around = (uint32_t)(k % TORN_AROUND);
            out->k = k / TORN_AROUND;
            return 0;
        }
        k -= here;
    }
    out->part = TORN_EACH;
    out->k = k;
    return 0;
}

/* A bit that depends on the disk's seed, the change, the unit and the number of the state. */
static bool coin(const struct zqcow2_simdisk_cut *c, uint64_t k, uint64_t change, uint64_t unit)
{
    uint64_t rng =
        c->disk->opt.seed ^ (k + 1) * 0x9fb21c651e98df25u ^ (c->position + 1) * 0xd6e8feb86659fd93u;

    rng = zq_random(&rng) ^ (change << 40) ^ unit;
    return zq_random(&rng) & 1;
}

/* The subset with number k of n > ALL_SUBSETS changes. */
static bool in_subset(const struct zqcow2_simdisk_cut *c, uint64_t k, uint32_t i)
{
    uint64_t n = c->state.n, pairs = n <= PAIRS ? n * (n - 1) / 2 : 0, first = 0;

    if (k < 2)
        return k == 1;
    k -= 2;
    if (k < n)
        return i < k;
    if (k < 2 * n)
        return i != k - n;
    if (k < 3 * n)
        return i == k - 2 * n;
    k -= 3 * n;
    if (k >= pairs)
        return coin(c, k - pairs, i, 0);
    while (k >= n - 1 - first)
        k -= n - 1 - first++;
    return i != first && i != first + 1 + k;
}

/* First the cuts, each of which keeps a prefix of the units, then seeded masks. */
static bool torn_keeps(const struct zqcow2_simdisk_cut *c, const struct choice *w, uint64_t unit)
{
    uint64_t units = units_of(c, w->torn);
    uint64_t cuts = units <= TORN_CUTS ? units - 1 : TORN_CUTS;

    if (w->k >= cuts)
        return coin(c, w->k, w->torn, unit);
    return unit < (units <= TORN_CUTS ? w->k + 1 : (w->k + 1) * units / (TORN_CUTS + 1));
}

static bool keeps(const struct zqcow2_simdisk_cut *c, const struct choice *w, uint32_t change,
                  uint64_t unit)
{
    if (w->part == SUBSET && c->state.n <= ALL_SUBSETS)
        return w->k >> change & 1;
    if (w->part == SUBSET)
        return in_subset(c, w->k, change);
    if (w->part == TORN_EACH)
        return coin(c, w->k, change, unit);
    if (change == w->torn)
        return torn_keeps(c, w, unit);
    return w->around == 2 || (w->around == 1 && change < w->torn);
}

/* Everything that builds one image needs, however it is chosen. */
struct chooser {
    const struct zqcow2_simdisk_cut *cut;
    const struct choice *choice; /* or */
    int (*keep)(void *arg, uint32_t change, uint32_t unit);
    void *arg;
};

static bool survives(const struct chooser *ch, uint32_t change, uint64_t unit)
{
    return ch->keep ? ch->keep(ch->arg, change, (uint32_t)unit) != 0 :
                      keeps(ch->cut, ch->choice, change, unit);
}

/* Runs of surviving units at a time: each call owns a page of the image, which costs a copy. */
static int land(struct sim_content *to, const struct chooser *ch, uint32_t change)
{
    const struct zqcow2_simdisk_options *o = &ch->cut->disk->opt;
    const struct sim_op *op = ch->cut->state.pending[change];
    uint64_t units = sim_op_units(op, o->atomic_write), from = 0, to_end = 0, unit;
    int rc = 0;

    if (units == 1 || (ch->choice && (ch->choice->part == SUBSET ||
                                      (ch->choice->part == TORN && change != ch->choice->torn))))
        return survives(ch, change, 0) ? sim_op_apply(to, op, 0, op->length, o->discard) : 0;
    for (unit = 0; rc == 0 && unit < units; unit++) {
        uint64_t end = zq_min(
            (op->offset / o->atomic_write + unit + 1) * o->atomic_write - op->offset, op->length);

        if (survives(ch, change, unit)) {
            to_end = end;
            continue;
        }
        if (to_end > from)
            rc = sim_op_apply(to, op, from, to_end, o->discard);
        from = to_end = end;
    }
    if (rc == 0 && to_end > from)
        rc = sim_op_apply(to, op, from, to_end, o->discard);
    return rc;
}

/* order: a permutation of the changes, or NULL. */
static int build(const struct chooser *ch, const uint32_t *order, struct zqcow2_simdisk **image)
{
    const struct zqcow2_simdisk_cut *c = ch->cut;
    struct zqcow2_simdisk *d;
    int rc = sim_disk_alloc(&c->disk->opt, &c->disk->hooks, &d);

    if (rc < 0)
        return rc;
    sim_content_copy(&d->now.durable, &c->state.durable);
    for (uint32_t i = 0; rc == 0 && i < c->state.n; i++)
        rc = land(&d->now.durable, ch, order ? order[i] : i);
    sim_content_copy(&d->view, &d->now.durable);
    d->view.unhashed = true;
    if (rc < 0)
        zqcow2_simdisk_free(d);
    else
        *image = d;
    return rc;
}

/*
 * The image is a disk of its own with the options of the first; its log is off, and it is all
 * durable.
 */
int zqcow2_simdisk_cut_image(const struct zqcow2_simdisk_cut *c, uint64_t k,
                             struct zqcow2_simdisk **image)
{
    struct choice w;
    struct chooser ch = {.cut = c, .choice = &w};
    int rc = choose(c, k, &w);

    return rc < 0 ? rc : build(&ch, NULL, image);
}

/*
 * The caller chooses each unit, and seed != 0 the order in which overlapping changes land, which
 * the numbered states do not vary. The shuffle is Fisher and Yates's, from the inside out.
 */
int zqcow2_simdisk_cut_choose(const struct zqcow2_simdisk_cut *c,
                              int (*keep)(void *arg, uint32_t change, uint32_t unit), void *arg,
                              uint64_t seed, struct zqcow2_simdisk **image)
{
    struct chooser ch = {.cut = c, .keep = keep, .arg = arg};
    const struct zqcow2_hooks *h = &c->disk->hooks;
    uint32_t *order = NULL, n = c->state.n;
    int rc;

    if (seed && n) {
        order = zq_zalloc_array(h, n, sizeof(*order));
        if (!order)
            return -ENOMEM;
        for (uint32_t i = 0; i < n; i++) {
            uint32_t j = (uint32_t)(zq_random(&seed) % (i + 1));

            order[i] = order[j];
            order[j] = i;
        }
    }
    rc = build(&ch, order, image);
    zq_free(h, order, n * sizeof(*order));
    return rc;
}

/*
 * A process that was killed loses what it had not written, and the host keeps the rest: changes
 * that have ended stay pending, and a later flush or power cut decides about them.
 */
int zqcow2_simdisk_cut_kill(const struct zqcow2_simdisk_cut *c, struct zqcow2_simdisk **disk)
{
    struct zqcow2_simdisk *d;
    int rc = sim_disk_alloc(&c->disk->opt, &c->disk->hooks, &d);

    if (rc < 0)
        return rc;
    d->count.position = c->position;
    rc = sim_state_copy(&d->now, &c->state);
    for (uint32_t i = d->now.n; rc == 0 && i-- > 0;) {
        if (d->now.pending[i]->ended >= c->position)
            rc = sim_state_step(&d->now, SIM_LOST, d->now.pending[i], d->opt.discard);
    }
    if (rc == 0)
        rc = sim_forget_cache(d);
    if (rc < 0)
        zqcow2_simdisk_free(d);
    else
        *disk = d;
    return rc;
}
