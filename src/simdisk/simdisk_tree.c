/* SPDX-License-Identifier: MIT */
/*
 * The content of a simulated disk: a radix tree of pages whose nodes are shared between copies
 * and copied on the first write (S1), so that a crash image costs what differs and no more.
 *
 * A missing node reads as zeros. The tree grows at its root when an offset lies beyond it, so that
 * small disks are shallow. A tree that holds the only reference to a node owns it and may change
 * it: no other tree can take a reference meanwhile, since it would have to come from this one.
 */
#include <errno.h>
#include <string.h>

#include "simdisk/simdisk_int.h"

/* A table has a fraction of a page's size, and is allocated at that. */
static size_t node_size(unsigned level)
{
    return offsetof(struct sim_node, u) +
           (level ? SIM_FAN * sizeof(struct sim_node *) : (size_t)SIM_PAGE);
}

/* Bytes below a node of this level; saturates where the tree covers all offsets. */
static uint64_t span(unsigned level)
{
    return level >= 9 ? UINT64_MAX : (uint64_t)SIM_PAGE << (6 * level);
}

static struct sim_node *node_new(const struct zqcow2_hooks *h, unsigned level)
{
    struct sim_node *n = zq_alloc(h, _Alignof(max_align_t), node_size(level));

    if (n) {
        atomic_init(&n->refs, 1);
        memset(&n->u, 0, node_size(level) - offsetof(struct sim_node, u));
    }
    return n;
}

/* Depth of recursion: the height of the tree, at most 9. */
static void node_put(const struct zqcow2_hooks *h, struct sim_node *n, unsigned level)
{
    if (!n || atomic_fetch_sub_explicit(&n->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (level) {
        for (unsigned i = 0; i < SIM_FAN; i++)
            node_put(h, n->u.kid[i], level - 1);
    }
    zq_free(h, n, node_size(level));
}

static void node_get(struct sim_node *n)
{
    if (n)
        atomic_fetch_add_explicit(&n->refs, 1, memory_order_relaxed);
}

/*
 * The node in *slot, made if missing and alone to this tree. A copy refers to the same children,
 * which are copied in turn only when they are written. NULL: no memory, and *slot is as it was.
 */
static struct sim_node *node_own(const struct zqcow2_hooks *h, struct sim_node **slot,
                                 unsigned level)
{
    struct sim_node *old = *slot, *n;

    if (old && atomic_load_explicit(&old->refs, memory_order_acquire) == 1)
        return old;
    n = node_new(h, level);
    if (!n)
        return NULL;
    if (old) {
        memcpy(&n->u, &old->u, node_size(level) - offsetof(struct sim_node, u));
        for (unsigned i = 0; level && i < SIM_FAN; i++)
            node_get(n->u.kid[i]);
        node_put(h, old, level);
    }
    *slot = n;
    return n;
}

/* Spreads every bit: the hashes of sectors are added, and a weak hash would cancel in the sum. */
static uint64_t mix(uint64_t h)
{
    h = (h ^ (h >> 32)) * 0xd6e8feb86659fd93u;
    h = (h ^ (h >> 32)) * 0xd6e8feb86659fd93u;
    return h ^ (h >> 32);
}

/*
 * 0 for zeros, so that holes and written zeros count the same. The index is part of it: equal bytes
 * in other places are another content. Four lanes, for speed.
 */
static uint64_t sector_hash(uint64_t index, const uint8_t *p)
{
    uint64_t lane[4], w[4], any = 0;

    for (unsigned i = 0; i < 4; i++)
        lane[i] = (index + 1) * 0x9e3779b97f4a7c15u + i;
    for (unsigned i = 0; i < 512; i += 32) {
        memcpy(w, p + i, 32);
        for (unsigned j = 0; j < 4; j++) {
            any |= w[j];
            lane[j] = (lane[j] ^ w[j]) * 0x9fb21c651e98df25u;
            lane[j] ^= lane[j] >> 29;
        }
    }
    return any ? mix(mix(mix(mix(lane[0]) + lane[1]) + lane[2]) + lane[3]) : 0;
}

/* Of the sectors that [from, to) of the page at `base` touches. */
static uint64_t page_hash(const struct sim_content *c, uint64_t base, const uint8_t *page,
                          unsigned from, unsigned to)
{
    uint64_t sum = 0;

    for (unsigned s = from / 512; !c->unhashed && s < (to + 511) / 512; s++)
        sum += sector_hash(base / 512 + s, page + s * 512);
    return sum;
}

void sim_content_init(struct sim_content *c, const struct zqcow2_hooks *hooks)
{
    *c = (struct sim_content){.hooks = hooks};
}

void sim_content_drop(struct sim_content *c)
{
    node_put(c->hooks, c->root, c->height);
    sim_content_init(c, c->hooks);
}

/* One reference to the root, whatever the size. The hooks stay the receiver's. */
void sim_content_copy(struct sim_content *to, const struct sim_content *from)
{
    const struct zqcow2_hooks *hooks = to->hooks;

    node_get(from->root);
    *to = *from;
    to->hooks = hooks;
}

static uint64_t subtree_hash(const struct sim_content *c, const struct sim_node *n, unsigned level,
                             uint64_t base)
{
    uint64_t sum = 0;

    if (!n || !level)
        return n ? page_hash(c, base, n->u.page, 0, SIM_PAGE) : 0;
    for (unsigned i = 0; i < SIM_FAN; i++)
        sum += subtree_hash(c, n->u.kid[i], level - 1, base + i * span(level - 1));
    return sum;
}

/*
 * mix(0) is taken off, so that an empty content of length 0 has hash 0, as sim_content_init() sets
 * it.
 */
void sim_content_rehash(struct sim_content *c)
{
    c->unhashed = false;
    c->hash = mix(c->length) - mix(0) + subtree_hash(c, c->root, c->height, 0);
}

/* NULL: zeros, or beyond what the tree covers. */
static const struct sim_node *lookup(const struct sim_content *c, uint64_t off)
{
    const struct sim_node *n = c->root;

    if (n && off / span(c->height))
        return NULL;
    for (unsigned level = c->height; n && level; level--)
        n = n->u.kid[off / span(level - 1) % SIM_FAN];
    return n;
}

void sim_content_read(const struct sim_content *c, void *buf, size_t len, uint64_t off)
{
    uint8_t *out = buf;

    while (len) {
        size_t at = (size_t)(off % SIM_PAGE), piece = SIM_PAGE - at < len ? SIM_PAGE - at : len;
        const struct sim_node *n = lookup(c, off);

        if (n)
            memcpy(out, n->u.page + at, piece);
        else
            memset(out, 0, piece);
        out += piece;
        off += piece;
        len -= piece;
    }
}

/* The old root becomes the first child of a new one: its offsets stay. */
static int grow_height(struct sim_content *c, uint64_t off)
{
    while (off / span(c->height)) {
        if (c->root) {
            struct sim_node *n = node_new(c->hooks, c->height + 1);

            if (!n)
                return -ENOMEM;
            n->u.kid[0] = c->root;
            c->root = n;
        }
        c->height++;
    }
    return 0;
}

static struct sim_node *page_own(struct sim_content *c, uint64_t off)
{
    struct sim_node **slot = &c->root, *n;

    if (grow_height(c, off) < 0)
        return NULL;
    for (unsigned level = c->height;; level--) {
        n = node_own(c->hooks, slot, level);
        if (!n || !level)
            return n;
        slot = &n->u.kid[off / span(level - 1) % SIM_FAN];
    }
}

/*
 * Zeros [from, to) of the subtree at *slot, which begins at byte `base`. A page that is zeroed as a
 * whole is freed; tables stay.
 */
static int zero_below(struct sim_content *c, struct sim_node **slot, unsigned level, uint64_t base,
                      uint64_t from, uint64_t to)
{
    struct sim_node *n;

    if (!*slot)
        return 0;
    n = node_own(c->hooks, slot, level);
    if (!n)
        return -ENOMEM;
    if (!level) {
        unsigned a = from > base ? (unsigned)(from - base) : 0;
        unsigned b = to - base < SIM_PAGE ? (unsigned)(to - base) : SIM_PAGE;

        c->hash -= page_hash(c, base, n->u.page, a, b);
        memset(n->u.page + a, 0, b - a);
        c->hash += page_hash(c, base, n->u.page, a, b);
        if (b - a == SIM_PAGE) {
            node_put(c->hooks, n, 0);
            *slot = NULL;
        }
        return 0;
    }
    for (unsigned i = 0; i < SIM_FAN; i++) {
        uint64_t start = base + i * span(level - 1);

        if (start < to && start + (span(level - 1) - 1) >= from &&
            zero_below(c, &n->u.kid[i], level - 1, start, from, to) < 0)
            return -ENOMEM;
    }
    return 0;
}

/* What lies beyond the tree is zero anyway. */
static int zero(struct sim_content *c, uint64_t from, uint64_t to)
{
    uint64_t reach = span(c->height);

    to = to < reach ? to : reach;
    return from < to ? zero_below(c, &c->root, c->height, 0, from, to) : 0;
}

/* The length is part of the hash: a file that was cut differs from one of zeros. */
static void set_length(struct sim_content *c, uint64_t length)
{
    c->hash += mix(length) - mix(c->length);
    c->length = length;
}

int sim_content_write(struct sim_content *c, const void *data, uint64_t len, uint64_t off)
{
    const uint8_t *in = data;

    if (!data)
        return zero(c, off, off + len);
    while (len) {
        unsigned at = (unsigned)(off % SIM_PAGE);
        unsigned piece = SIM_PAGE - at < len ? SIM_PAGE - at : (unsigned)len;
        struct sim_node *n = page_own(c, off);

        if (!n)
            return -ENOMEM;
        c->hash -= page_hash(c, off - at, n->u.page, at, at + piece);
        memcpy(n->u.page + at, in, piece);
        c->hash += page_hash(c, off - at, n->u.page, at, at + piece);
        in += piece;
        off += piece;
        len -= piece;
    }
    if (off > c->length)
        set_length(c, off);
    return 0;
}

/* What lies beyond the length is zero at all times, so growing has nothing to do. */
int sim_content_truncate(struct sim_content *c, uint64_t length)
{
    int rc = 0;

    if (length < c->length)
        rc = zero(c, length, UINT64_MAX);
    set_length(c, length);
    return rc;
}
