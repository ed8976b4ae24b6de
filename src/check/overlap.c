/* SPDX-License-Identifier: MIT */
/* Compares an image's fixed tables pairwise. */
#include "check/overlap.h"

#include <inttypes.h>

#include "base/bytes.h"
#include "base/report.h"
#include "format/entry.h"
#include "format/states.h"

#define MAX_AREAS 7

static const char rt_name[] = "refcount table";

/* Tables fill whole clusters: what lies behind them in their last cluster is theirs too. */
static void add(struct zq_area *a, unsigned *n, const struct zq_header *h, const char *name,
                uint64_t offset, uint64_t bytes)
{
    if (bytes)
        a[(*n)++] = (struct zq_area){name, offset, zq_align_up(bytes, 1ull << h->cluster_bits)};
}

static unsigned collect(struct zq_area a[MAX_AREAS], const struct zq_header *h,
                        const struct zq_geometry *g)
{
    unsigned n = 0;

    add(a, &n, h, "header", 0, 1);
    add(a, &n, h, "L1 table", h->l1_offset, zq_table_bytes(h->l1_entries));
    add(a, &n, h, rt_name, h->rt_offset, (uint64_t)h->rt_clusters << h->cluster_bits);
    if (g && g->layout)
        add(a, &n, h, "write-pointer table", g->table_offset, zq_entries_bytes(g->nr_zones));
    if (h->states_offset)
        add(a, &n, h, "table of zone states", h->states_offset, zq_states_bytes(h->states_zones));
    if (h->descriptors_offset)
        add(a, &n, h, "table of zone descriptors", h->descriptors_offset,
            zq_descriptors_bytes(h->descriptor_size, h->states_zones));
    add(a, &n, h, "snapshot table", h->snapshots_offset, h->snapshots_bytes);
    return n;
}

/* A repair moves the refcounts away. */
static int compare(const struct zq_area *a, const struct zq_area *b, struct zqcow2_error *err)
{
    bool movable = a->name == rt_name || b->name == rt_name;

    if (!zq_ranges_overlap(a->offset, a->bytes, b->offset, b->bytes))
        return 0;
    return zq_fail(err, ZQCOW2_ECORRUPT,
                   "%s at 0x%" PRIx64 " (%" PRIu64 " bytes) overlaps the %s at 0x%" PRIx64
                   " (%" PRIu64 " bytes)%s",
                   a->name, a->offset, a->bytes, b->name, b->offset, b->bytes,
                   movable ? ": check and repair the image before writing" : "");
}

int zq_overlap_check(const struct zq_header *h, const struct zq_geometry *g,
                     struct zqcow2_error *err)
{
    struct zq_area a[MAX_AREAS];
    unsigned n = collect(a, h, g);
    int rc = 0;

    for (unsigned i = 1; i < n && rc == 0; i++) {
        for (unsigned j = 0; j < i && rc == 0; j++)
            rc = compare(&a[i], &a[j], err);
    }
    return rc;
}

/*
 * One at a time: called for each entry of L1 and of the refcount table, against six areas at most.
 */
int zq_overlap_check_area(const struct zq_header *h, const struct zq_geometry *g,
                          const struct zq_area *area, struct zqcow2_error *err)
{
    struct zq_area a[MAX_AREAS];
    unsigned n = collect(a, h, g);
    int rc = 0;

    for (unsigned i = 0; i < n && rc == 0; i++)
        rc = compare(area, &a[i], err);
    return rc;
}
