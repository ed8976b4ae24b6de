/* SPDX-License-Identifier: MIT */
/* Judges single entries of L1 and L2: what they point to, and what is wrong with it. */
#include "image/walk.h"

#include "base/bytes.h"

/* More than a repair adds to a file beside copies, which may double it. */
#define MAX_GROWTH (64u << 20)

static void target_bad(struct zq_target *t, const char *why)
{
    t->why = why;
    t->where = "";
    t->len = 0;
}

/*
 * Wrong because of what lies there: the reference still counts, which keeps writers away; but a
 * lower rank cannot take tables away from the active disk that are written in place. Whether the
 * entry or the refcount table is at fault is not known; out of place refcounts suit both.
 */
static void target_lies_on(struct zq_scan *s, struct zq_target *t, unsigned forbidden)
{
    uint64_t first = t->host >> s->h.cluster_bits;
    uint64_t last = (t->host + t->len - 1) >> s->h.cluster_bits;
    unsigned on = 0;

    for (uint64_t c = first; c <= last; c++)
        on |= zq_counts_kind(&s->counts, c) & forbidden;
    if (!on)
        return;
    t->why = "points into the ";
    t->where = zq_kind_name(on);
    t->counted = s->rank == ZQ_RANK_ACTIVE || !(on & ZQ_KINDS_IN_PLACE);
    t->len = t->counted ? t->len : 0;
    s->rebuild |= on & ZQ_KIND_REFCOUNTS;
}

/* A file that grows must not give such an entry something to point to. */
static void note_past_end(struct zq_scan *s, uint64_t end)
{
    if (end / 2 < s->file_size + MAX_GROWTH)
        s->past_end = zq_max(s->past_end, end);
}

static bool target_cluster(struct zq_scan *s, struct zq_target *t)
{
    if (t->host & (zq_scan_cluster(s) - 1)) {
        target_bad(t, "is not aligned to a cluster");
    } else if (t->host >= s->file_size) {
        note_past_end(s, t->host + zq_scan_cluster(s));
        target_bad(t, "points past the end of the file");
    } else {
        t->len = zq_scan_cluster(s);
    }
    return !t->why;
}

void zq_l1_target(struct zq_scan *s, uint64_t entry, struct zq_target *t)
{
    *t = (struct zq_target){.host = entry & ZQ_OFFSET_MASK};
    if (entry & ZQ_L1_RESERVED)
        target_bad(t, "reserved bits are set");
    else if (!t->host && entry)
        target_bad(t, "COPIED is set without a table");
    else if (t->host && target_cluster(s, t))
        target_lies_on(s, t, ZQ_KINDS_FIXED | ZQ_KIND_DATA);
}

static void compressed_target(struct zq_scan *s, uint64_t entry, struct zq_target *t)
{
    uint64_t len;

    t->compressed = true;
    zq_compressed_range(entry, s->h.cluster_bits, &t->host, &len);
    /* A file may end in the middle of the last sector. */
    t->len = len;
    if (t->host < ZQ_MAX_HOST_OFFSET &&
        zq_round_down(t->host + len - 1, ZQ_SECTOR) < s->file_size)
        return;
    note_past_end(s, t->host + len);
    target_bad(t, "compressed data runs past the end of the file");
}

static void standard_target(struct zq_scan *s, uint64_t entry, struct zq_target *t)
{
    uint64_t reserved = ZQ_L2_RESERVED | (s->h.version < 3 ? ZQ_OFLAG_ZERO : 0);

    t->host = entry & ZQ_OFFSET_MASK;
    t->zero = entry & ZQ_OFLAG_ZERO;
    if (entry & reserved)
        target_bad(t, "reserved bits are set");
    else if (t->host)
        (void)target_cluster(s, t);
    else if (entry & ZQ_OFLAG_COPIED)
        target_bad(t, "COPIED is set without a cluster");
}

void zq_l2_target(struct zq_scan *s, uint64_t entry, struct zq_target *t)
{
    *t = (struct zq_target){0};
    if (entry & ZQ_OFLAG_COMPRESSED)
        compressed_target(s, entry, t);
    else
        standard_target(s, entry, t);
    if (t->len)
        target_lies_on(s, t, ZQ_KINDS_FIXED | ZQ_KIND_L2);
}
