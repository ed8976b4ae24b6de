/* SPDX-License-Identifier: MIT */
/* Judges a table by what it says of itself, so that bytes of another table do not pass for it. */
#include "check/genuine.h"

#include "format/refbits.h"

int zq_block_count(struct zqcow2_backend *be, const struct zq_header *h, uint64_t block,
                   uint64_t cluster, uint64_t *v)
{
    uint64_t in_block = (1ull << zq_block_bits(h->cluster_bits, h->refcount_order)) - 1;
    uint64_t bit = (cluster & in_block) << h->refcount_order;
    uint8_t raw[ZQ_SECTOR];
    int rc = zq_be_read(be, raw, sizeof(raw), block + zq_align_down(bit / 8, ZQ_SECTOR));

    if (rc == 0)
        *v = zq_refbits_get(raw, h->refcount_order, (bit % (ZQ_SECTOR * 8)) >> h->refcount_order);
    return rc;
}

/* *v: a refcount, 0 also where no block can be; *block: where it lies, or 0. */
static int read_count(struct zqcow2_backend *be, const struct zq_header *h, uint64_t file_size,
                      uint64_t cluster, uint64_t *v, uint64_t *block)
{
    const struct zq_bounds b = {zq_form_of(h), file_size};
    uint64_t index = cluster >> zq_block_bits(h->cluster_bits, h->refcount_order);
    uint8_t raw[ZQ_TABLE_ENTRY];
    int rc;

    *v = *block = 0;
    if (index >= zq_table_count((uint64_t)h->rt_clusters << h->cluster_bits))
        return 0;
    rc = zq_be_read(be, raw, sizeof(raw), h->rt_offset + zq_table_bytes(index));
    if (rc < 0 || zq_rt_read(&b, zq_table_get(raw, 0), block) || !*block) {
        *block = 0;
        return rc;
    }
    return zq_block_count(be, h, *block, cluster, v);
}

int zq_rt_is_genuine(struct zqcow2_backend *be, const struct zq_header *h, uint64_t file_size,
                     bool *yes)
{
    uint64_t of[3] = {0, h->rt_offset >> h->cluster_bits}, block, v;
    int rc = 0;

    *yes = !h->rt_wrong;
    for (int i = 0; i < 3 && rc == 0 && *yes; i++) {
        rc = read_count(be, h, file_size, of[i], &v, &block);
        of[2] = i ? of[2] : block >> h->cluster_bits;
        *yes = rc == 0 && v == 1;
    }
    return rc;
}

/* The beginning of another table, taken for refcounts, would hardly have a 1 in this place. */
int zq_block_is_genuine(struct zqcow2_backend *be, const struct zq_header *h, uint64_t file_size,
                        uint64_t block, bool *yes)
{
    uint64_t v, by;
    int rc = read_count(be, h, file_size, block >> h->cluster_bits, &v, &by);

    *yes = rc == 0 && v == 1;
    return rc;
}

int zq_l1_is_genuine(struct zqcow2_backend *be, const struct zq_bounds *b, uint64_t at,
                     uint64_t bytes, bool *yes)
{
    uint8_t raw[ZQ_SECTOR];
    uint64_t some = 0, host;
    int rc = 0;

    *yes = true;
    for (uint64_t pos = 0; rc == 0 && *yes && pos < bytes; pos += sizeof(raw)) {
        size_t len = (size_t)zq_min(sizeof(raw), bytes - pos);

        rc = zq_be_read(be, raw, len, at + pos);
        for (uint64_t i = 0; rc == 0 && i < zq_table_count(len); i++) {
            some |= zq_table_get(raw, i);
            *yes = *yes && !zq_l1_read(b, zq_table_get(raw, i), &host);
        }
    }
    *yes = *yes && rc == 0 && some;
    return rc;
}

bool zq_record_is_genuine(const struct zq_bounds *b, const struct zq_snapshot *r)
{
    return r->id_bytes && r->extra <= ZQ_SNAPSHOT_EXTRA_MAX && r->l1_entries &&
           r->l1_entries <= zq_table_count(ZQ_MAX_L1_BYTES) && r->l1_offset &&
           !zq_host_misplaced(b, r->l1_offset);
}

int zq_snapshots_are_genuine(struct zqcow2_backend *be, const struct zq_header *h,
                             uint64_t file_size, bool *yes)
{
    const struct zq_bounds b = {zq_form_of(h), file_size};
    uint8_t raw[ZQ_SNAPSHOT_FIXED];
    struct zq_snapshot r;
    int rc;

    *yes = false;
    if (h->snapshots_wrong || !h->nb_snapshots)
        return 0;
    rc = zq_be_read(be, raw, sizeof(raw), h->snapshots_offset);
    if (rc < 0)
        return rc;
    zq_snapshot_read(raw, &r);
    *yes = zq_record_is_genuine(&b, &r);
    return 0;
}
