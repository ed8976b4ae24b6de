/* SPDX-License-Identifier: MIT */
/*
 * Gives the host back what nothing in the image uses. A process that was killed leaves it behind:
 * the file longer than anything refers to, bytes in clusters that were never counted, and the
 * content of zones whose reset was durable when their holes were still to be punched.
 *
 * Only of an image in which nothing is wrong, and behind a barrier (R13): what is cut off or
 * punched cannot come back, and the tables that made it free must not either.
 */
#include <inttypes.h>

#include "base/bytes.h"
#include "format/refbits.h"
#include "check/repair.h"

#define LEAST (64u << 10) /* a hole that is smaller costs the host more than it gives */

/* Bytes of the file that may become a hole; neighbours are one. */
struct gap {
    uint64_t from, to;
};

/* Whether the host could or not (R6). */
static void punch(struct zq_scan *s, const struct gap *g)
{
    uint64_t to = zq_min(g->to, s->file_size);

    if (to > g->from && to - g->from >= LEAST)
        (void)zq_be_discard(s->be, g->from, to - g->from);
}

static void add(struct zq_scan *s, struct gap *g, uint64_t from, uint64_t bytes)
{
    if (from == g->to) {
        g->to += bytes;
        return;
    }
    punch(s, g);
    *g = (struct gap){from, from + bytes};
}

/* s->block holds block number `index`. */
static void add_free(struct zq_scan *s, struct gap *g, uint64_t index)
{
    unsigned bits = zq_scan_block_bits(s), cluster_bits = s->h.cluster_bits;

    for (uint64_t i = 0; i < 1ull << bits; i++) {
        if (!zq_refbits_get(s->block, s->h.refcount_order, i))
            add(s, g, ((index << bits) + i) << cluster_bits, zq_scan_cluster(s));
    }
}

/* Without corruptions a cluster whose refcount is 0 is referred to by nothing. */
static int punch_free(struct zq_scan *s)
{
    unsigned range_bits = zq_scan_block_bits(s) + s->h.cluster_bits;
    struct gap g = {0, 0};

    for (uint64_t i = 0; i < s->rt_entries && i << range_bits < s->file_size; i++) {
        int rc = s->rt[i] ? zq_scan_block(s, i) : 0;

        if (rc < 0)
            return rc;
        if (s->rt[i])
            add_free(s, &g, i);
        else
            add(s, &g, i << range_bits, (uint64_t)1 << range_bits);
    }
    punch(s, &g);
    return 0;
}

struct beyond {
    const struct zq_l2 *table;
    struct gap gap;
};

/* What is mapped at or beyond a write pointer is never served, and stays mapped (R4). */
static int add_beyond(struct zq_scan *s, void *arg, uint64_t index, uint64_t at, uint8_t *entry)
{
    struct beyond *b = arg;
    struct zq_target t;

    (void)at;
    if (!zq_scan_beyond_wp(s, b->table, index))
        return 0;
    zq_l2_target(s, b->table, index, entry, &t);
    if (t.len && !t.compressed && zq_counts_get(&s->counts, t.host >> s->h.cluster_bits) == 1)
        add(s, &b->gap, t.host, t.len);
    return 0;
}

static int punch_beyond(struct zq_scan *s)
{
    struct beyond b = {NULL, {0, 0}};
    int rc = 0;

    for (size_t i = 0; s->g.layout && i < s->nr_l2s && rc == 0; i++) {
        b.table = &s->l2s[i];
        if (b.table->index != ZQ_NO_INDEX)
            rc = zq_walk_l2(s, b.table->offset, add_beyond, &b);
    }
    punch(s, &b.gap);
    return rc;
}

/*
 * What is allocated beyond the end counts as zeros, so that end must be durable before it is. A
 * host that cannot make the file shorter only loses the space.
 */
static int cut_file(struct zq_scan *s)
{
    uint64_t end = s->end_cluster << s->h.cluster_bits;

    if (s->file_size <= end || zq_be_truncate(s->be, end) < 0)
        return 0;
    zq_found(s, ZQCOW2_FOUND_REPAIRED, 1, "%" PRIu64 " bytes behind the last cluster cut off",
             s->file_size - end);
    s->file_size = end;
    return zq_be_flush(s->be);
}

/* The file is cut first: what lies behind the cut need not be punched. */
int zq_repair_space(struct zq_scan *s)
{
    int rc;

    if (!zq_scan_may_free(s))
        return 0;
    /* What was read may be in the host's cache alone: before it is durable nothing goes. */
    rc = zq_be_flush(s->be);
    if (rc == 0)
        rc = cut_file(s);
    if (rc == 0)
        rc = punch_free(s);
    return rc == 0 ? punch_beyond(s) : rc;
}
