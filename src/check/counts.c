/* SPDX-License-Identifier: MIT */
/*
 * Keeps reference counts in a radix tree of small sorted bags.
 *
 * A hostile image may name clusters anywhere below 2^47, so neither an array nor a tree of pages
 * would do: memory follows the number of clusters that something refers to, at most 16 bytes for
 * each, wherever they lie.
 */
#include "check/counts.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"

#define FANOUT_BITS 4
#define FANOUT      (1u << FANOUT_BITS)
#define BAG_MAX     256u /* a bag that covers no more numbers than these never has to be split */
#define KEY_BITS    48   /* 2^56 bytes in clusters of 512 bytes need 47 */

struct zq_bag {
    uint32_t n, room;
    struct zq_ref v[]; /* by number, ascending */
};

/* A child of a node at this shift covers 1 << shift numbers: a bag, NULL, or a node. */
struct node {
    void *child[FANOUT];
    uint16_t is_node; /* a bit for each child */
};

/* Where a bag hangs. */
struct slot {
    struct node *node;
    unsigned i, shift;
};

static size_t bag_bytes(uint32_t room)
{
    return sizeof(struct zq_bag) + room * sizeof(struct zq_ref);
}

static unsigned child_index(uint64_t cluster, unsigned shift)
{
    return (unsigned)(cluster >> shift) & (FANOUT - 1);
}

/* Where the bag hangs, or would, that takes the cluster. */
static struct slot descend(const struct zq_counts *c, uint64_t cluster)
{
    struct slot s = {.node = c->root, .shift = KEY_BITS - FANOUT_BITS};

    for (;; s.shift -= FANOUT_BITS) {
        s.i = child_index(cluster, s.shift);
        if (!(s.node->is_node >> s.i & 1))
            return s;
        s.node = s.node->child[s.i];
    }
}

static struct zq_bag *bag_of(const struct slot *s)
{
    return s->node->child[s->i];
}

/* The next searches are likely to end here, too. */
static void remember(struct zq_counts *c, const struct slot *s, uint64_t cluster)
{
    c->last = bag_of(s);
    c->last_first = zq_align_down(cluster, (uint64_t)1 << s->shift);
    c->last_end = c->last_first + ((uint64_t)1 << s->shift);
}

/* ---- within a bag ---- */

/* The first place whose number is not below the cluster's. */
static uint32_t place(const struct zq_bag *bag, uint64_t cluster)
{
    uint32_t low = 0, high = bag->n;

    if (high && zq_ref_cluster(&bag->v[high - 1]) < cluster)
        return high;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;

        if (zq_ref_cluster(&bag->v[mid]) < cluster)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static bool is_at(const struct zq_bag *bag, uint32_t i, uint64_t cluster)
{
    return i < bag->n && zq_ref_cluster(&bag->v[i]) == cluster;
}

/* Of v, n are copied; the caller still owns the bag that v lies in. */
static struct zq_bag *new_bag(struct zq_counts *c, const struct zq_ref *v, uint32_t n,
                              uint32_t room)
{
    struct zq_bag *bag = zq_alloc(c->hooks, _Alignof(struct zq_bag), bag_bytes(room));

    if (!bag)
        return NULL;
    bag->n = n;
    bag->room = room;
    if (n)
        memcpy(bag->v, v, n * sizeof(*v));
    return bag;
}

static void free_bag(struct zq_counts *c, struct zq_bag *bag)
{
    if (bag)
        zq_free(c->hooks, bag, bag_bytes(bag->room));
}

/* Makes the bag take one more. It grows by an eighth, so that little is left unused. */
static int grow(struct zq_counts *c, const struct slot *s)
{
    struct zq_bag *old = bag_of(s), *bag;
    uint32_t n = old ? old->n : 0;

    if (old && n < old->room)
        return 0;
    bag = new_bag(c, old ? old->v : NULL, n, n + n / 8 + 1);
    if (!bag)
        return -ENOMEM;
    free_bag(c, old);
    s->node->child[s->i] = bag;
    return 0;
}

/* ---- the tree ---- */

static void free_node(struct zq_counts *c, struct node *node)
{
    for (unsigned i = 0; i < FANOUT; i++) {
        if (node->is_node >> i & 1)
            free_node(c, node->child[i]); /* at most KEY_BITS / FANOUT_BITS deep */
        else
            free_bag(c, node->child[i]);
    }
    zq_free(c->hooks, node, sizeof(*node));
}

/* How many of the bag, from number `from` on, go to the same child. */
static uint32_t like(const struct zq_bag *bag, uint32_t from, unsigned shift)
{
    uint32_t n = from;
    unsigned to = child_index(zq_ref_cluster(&bag->v[from]), shift);

    while (n < bag->n && child_index(zq_ref_cluster(&bag->v[n]), shift) == to)
        n++;
    return n - from;
}

/* A full bag becomes a node, and its clusters fall into the node's children. */
static int split(struct zq_counts *c, const struct slot *s)
{
    struct node *node = zq_zalloc(c->hooks, sizeof(*node));
    struct zq_bag *bag = bag_of(s);
    unsigned shift = s->shift - FANOUT_BITS;

    if (!node)
        return -ENOMEM;
    for (uint32_t i = 0, n; i < bag->n; i += n) {
        void **child = &node->child[child_index(zq_ref_cluster(&bag->v[i]), shift)];

        n = like(bag, i, shift);
        *child = new_bag(c, bag->v + i, n, n);
        if (!*child) {
            free_node(c, node);
            return -ENOMEM;
        }
    }
    free_bag(c, bag);
    s->node->child[s->i] = node;
    s->node->is_node |= (uint16_t)(1u << s->i);
    return 0;
}

/*
 * The bag that takes the cluster, with room for one more. c->last is dropped first: what it points
 * to may be split or moved.
 */
static struct zq_bag *make_room(struct zq_counts *c, uint64_t cluster)
{
    struct slot s;

    c->last = NULL;
    if (!c->root && !(c->root = zq_zalloc(c->hooks, sizeof(struct node))))
        return NULL;
    for (s = descend(c, cluster); bag_of(&s); s = descend(c, cluster)) {
        if (bag_of(&s)->n < BAG_MAX)
            break;
        if (split(c, &s) < 0)
            return NULL;
    }
    if (grow(c, &s) < 0)
        return NULL;
    remember(c, &s, cluster);
    return c->last;
}

/* Makes c->last the bag that would hold the cluster; false: there is none. */
static bool seek(struct zq_counts *c, uint64_t cluster)
{
    struct slot s;

    if (c->last && cluster >= c->last_first && cluster < c->last_end)
        return true;
    if (!c->root || cluster >> KEY_BITS)
        return false;
    s = descend(c, cluster);
    remember(c, &s, cluster);
    return c->last != NULL;
}

static struct zq_ref *find(struct zq_counts *c, uint64_t cluster)
{
    uint32_t i;

    if (!seek(c, cluster))
        return NULL;
    i = place(c->last, cluster);
    return is_at(c->last, i, cluster) ? &c->last->v[i] : NULL;
}

/* NULL also for a number that no offset of a file has; judging entries keeps such numbers away. */
static struct zq_ref *insert(struct zq_counts *c, uint64_t cluster)
{
    struct zq_bag *bag = cluster >> KEY_BITS ? NULL : make_room(c, cluster);
    uint32_t i;

    if (!bag)
        return NULL;
    i = place(bag, cluster);
    memmove(bag->v + i + 1, bag->v + i, (bag->n - i) * sizeof(*bag->v));
    bag->v[i] = (struct zq_ref){.low = (uint32_t)cluster, .high = (uint16_t)(cluster >> 32)};
    bag->n++;
    return &bag->v[i];
}

int zq_counts_add(struct zq_counts *c, uint64_t cluster, uint32_t n, enum zq_kind kind,
                  unsigned *before)
{
    struct zq_ref *r = find(c, cluster);

    if (!r && !(r = insert(c, cluster)))
        return -ENOMEM;
    if (before)
        *before = r->kind;
    r->count = n > UINT32_MAX - r->count ? UINT32_MAX : r->count + n;
    r->kind |= (uint8_t)kind;
    if (kind == ZQ_KIND_NONE)
        r->once |= ZQ_BY_WRONG;
    return 0;
}

/* The cluster must have been added: find() cannot fail then. */
void zq_counts_note(struct zq_counts *c, uint64_t cluster, enum zq_by by)
{
    find(c, cluster)->once |= (uint8_t)by;
}

uint32_t zq_counts_get(struct zq_counts *c, uint64_t cluster)
{
    const struct zq_ref *r = find(c, cluster);

    return r ? r->count : 0;
}

unsigned zq_counts_kind(struct zq_counts *c, uint64_t cluster)
{
    const struct zq_ref *r = find(c, cluster);

    return r ? r->kind : 0;
}

unsigned zq_counts_once(struct zq_counts *c, uint64_t cluster)
{
    const struct zq_ref *r = find(c, cluster);

    return r ? r->once : 0;
}

struct zq_ref *zq_counts_next(struct zq_counts *c, uint64_t from)
{
    while (c->root && !(from >> KEY_BITS)) {
        uint32_t i = seek(c, from) ? place(c->last, from) : 0;

        if (c->last && i < c->last->n)
            return &c->last->v[i];
        from = c->last_end;
    }
    return NULL;
}

void zq_counts_free(struct zq_counts *c)
{
    if (c->root)
        free_node(c, c->root);
    *c = (struct zq_counts){.hooks = c->hooks};
}

const char *zq_kind_name(unsigned kinds)
{
    static const char *const names[] = {
        "header",         "refcount table or block",   "L1 table", "write-pointer table",
        "snapshot table", "bitmap directory or table", "L2 table", "data cluster"};
    for (unsigned i = 0; i < 8; i++) {
        if (kinds & 1u << i)
            return names[i];
    }
    return "nothing";
}
