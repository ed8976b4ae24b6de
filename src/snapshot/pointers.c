/* SPDX-License-Identifier: MIT */
/*
 * The write pointers of a zoned image's snapshots (N1). A snapshot has a copy of the table, in
 * clusters of its own; a disk that is applied gets a copy of that. Entries are copied as they are:
 * how they are written shows in the table as a whole.
 */
#include <errno.h>
#include <inttypes.h>
#include "base/report.h"
#include "snapshot/snapshot.h"

/* In a file that has these clusters already. */
int zq_snap_write_padded(struct zq_snap *s, const uint8_t *from, uint64_t bytes, uint64_t host)
{
    uint64_t whole = zq_align_down(bytes, zq_snap_cluster(s));
    int rc = whole ? zq_be_write(s->be, from, (size_t)whole, host) : 0;

    if (rc < 0 || whole == bytes)
        return rc;
    memset(s->l2, 0, (size_t)zq_snap_cluster(s));
    memcpy(s->l2, from + whole, (size_t)(bytes - whole));
    return zq_be_write(s->be, s->l2, (size_t)zq_snap_cluster(s), host + whole);
}

static int no_copy(struct zq_snap *s, const char *why)
{
    return zq_fail(s->err, ZQCOW2_ECORRUPT, "the snapshot has no write pointers: %s", why);
}

/* Nobody else has a cluster of it, and somebody has each. */
static int is_counted(struct zq_snap *s, bool *yes)
{
    uint64_t cluster = s->other_zones.table_offset >> s->bounds.form.cluster_bits;
    uint64_t n = zq_snap_pointer_bytes(s, &s->other_zones) >> s->bounds.form.cluster_bits;
    uint64_t refcount = 1;
    int rc = 0;

    for (uint64_t i = 0; rc == 0 && refcount == 1 && i < n; i++)
        rc = zq_snap_refcount(s, cluster + i, &refcount);
    *yes = refcount == 1;
    return rc;
}

/* other_zones.layout stays NONE where there is no copy that may be believed. */
int zq_snap_find_copy(struct zq_snap *s)
{
    struct zq_geometry zones;
    struct zq_snapshot_facts f;
    bool counted = false;
    int rc;

    zq_snapshot_facts(s->table + s->record, &f);
    if (!s->zones || !zq_copy_of(s->hdr, s->zones, s->bounds.file_size, &f, &zones) ||
        s->is_table(s->arg, zones.table_offset, zq_snap_pointer_bytes(s, &zones), true))
        return 0;
    s->other_zones = zones;
    rc = is_counted(s, &counted);
    if (rc < 0 || !counted)
        s->other_zones.layout = ZQCOW2_LAYOUT_NONE;
    return rc;
}

int zq_snap_load_pointers(struct zq_snap *s)
{
    struct zq_geometry *zones = &s->other_zones;
    int rc;

    if (!s->zones)
        return 0;
    if (!zones->layout && !s->hdr->copies)
        return no_copy(s, "it was taken, or the image written, by a program that keeps none");
    if (!zones->layout)
        return no_copy(s, "what its record names is no copy of their table");
    s->pointers = zq_zalloc(s->hooks, zq_pointers_bytes(zones));
    if (!s->pointers)
        return -ENOMEM;
    rc = zq_be_read(s->be, s->pointers, zq_pointers_bytes(zones), zones->table_offset);
    return rc < 0 ? rc : zq_entry_code_detect(zones, s->pointers, s->err);
}

/* A cluster at a time; behind the entries there are zeros. */
int zq_snap_copy_pointers(struct zq_snap *s, uint64_t to)
{
    uint64_t bytes = zq_entries_bytes(s->zones->nr_zones), cluster = zq_snap_cluster(s);
    int rc = 0;

    for (uint64_t at = 0; rc == 0 && at < bytes; at += cluster) {
        size_t n = (size_t)zq_min(bytes - at, cluster);

        rc = zq_be_read(s->be, s->l2, (size_t)zq_align_up(n, ZQ_SECTOR),
                        s->zones->table_offset + at);
        memset(s->l2 + n, 0, (size_t)cluster - n);
        if (rc == 0)
            rc = zq_be_write(s->be, s->l2, (size_t)cluster, to + at);
    }
    return rc;
}

/* Each begins with a cluster of its own, behind the L1 that is applied. */
uint64_t zq_snap_zone_bytes(const struct zq_snap *s)
{
    uint32_t nr = s->other_zones.nr_zones;
    uint64_t cluster = zq_snap_cluster(s), bytes;

    if (!s->zones)
        return 0;
    bytes = zq_snap_pointer_bytes(s, &s->other_zones);
    if (s->states_offset)
        bytes += zq_align_up(zq_states_bytes(nr), cluster) +
                 zq_align_up(zq_descriptors_bytes(s->hdr->descriptor_size, nr), cluster);
    return bytes;
}

/* The table of descriptor extensions is not read where no zone has one. */
int zq_snap_write_zones(struct zq_snap *s)
{
    const struct zq_geometry *zones = &s->other_zones;
    int rc;

    if (!s->zones)
        return 0;
    rc = zq_snap_write_padded(s, s->pointers, zq_entries_bytes(zones->nr_zones), s->new_pointers);
    if (rc < 0 || !s->states_offset)
        return rc;
    return zq_snap_write_padded(s, s->states, zq_states_bytes(zones->nr_zones), s->new_states);
}

/* In the sector that switches L1, too: pointers and map are those of one moment (N3). */
void zq_snap_switch_zones(struct zq_snap *s)
{
    struct zq_geometry zones = s->other_zones;

    if (!s->zones)
        return;
    zones.table_offset = s->new_pointers;
    zq_zone_ext_move(s->sector0 + s->hdr->zoned_offset, &zones);
    if (s->states_offset)
        (void)zq_states_put(s->sector0, s->hdr, s->new_states, zones.nr_zones);
}

/* What the header named before the switch. */
int zq_snap_lower_zones(struct zq_snap *s)
{
    int rc;

    if (!s->zones)
        return 0;
    rc = zq_snap_count_range(s, s->zones->table_offset, zq_entries_bytes(s->zones->nr_zones));
    if (rc == 0 && s->states_offset)
        rc = zq_snap_count_range(s, s->states_offset, zq_states_bytes(s->zones->nr_zones));
    if (rc == 0 && s->states_offset)
        rc = zq_snap_count_range(s, s->hdr->descriptors_offset,
                                 zq_descriptors_bytes(s->hdr->descriptor_size, s->zones->nr_zones));
    return rc;
}

/* All of it must change with one sector, or nothing begins. */
int zq_snap_judge_header(struct zq_snap *s)
{
    uint8_t probe[ZQ_SECTOR];
    bool fits = true;

    if (!s->zones)
        return 0;
    memcpy(probe, s->sector0, ZQ_SECTOR);
    if (s->kind == ZQ_SNAP_TAKE)
        fits = zq_copies_put(probe, s->hdr);
    else if (s->hdr->zoned_offset + s->hdr->zoned_len > ZQ_SECTOR)
        return zq_fail(s->err, ZQCOW2_EFEATURE,
                       "the zoned extension does not lie in the first 512 bytes of the file");
    else if (s->states_offset)
        fits = zq_states_put(probe, s->hdr, zq_snap_cluster(s), s->other_zones.nr_zones);
    return fits ? 0 :
                  zq_fail(s->err, ZQCOW2_EFEATURE,
                          "the first 512 bytes of the file have no room for a header extension");
}
