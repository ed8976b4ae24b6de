/* SPDX-License-Identifier: MIT */
/*
 * The parts of a scan for snapshots and bitmaps, which this library keeps but does not use.
 *
 * All of it was written by other programs. Where a table cannot be followed to its end, what lies
 * behind is unknown, and the scan is `hidden`: it reports what it found, and nothing is freed.
 */
#include "check/scan.h"

#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "base/report.h"
#include "format/bitmaps.h"
#include "format/copies.h"

#define SNAPSHOT_FIXED     40u
#define SNAPSHOT_EXTRA     16u /* version 3 needs this much */
#define MAX_SNAPSHOT_EXTRA 1024u
#define MAX_SNAPSHOT_TABLE (64u << 20)
#define MAX_HOLES          (1u << 20) /* clusters */

/* What lies behind a table that cannot be read may look unused, and is not. */
static void give_up(struct zq_scan *s, const char *what, uint64_t value, uint64_t at,
                    const char *why)
{
    zq_found(s, ZQCOW2_FOUND_CORRUPTION, 1, "%s %" PRIu64 " (0x%" PRIx64 ") at 0x%" PRIx64 ": %s",
             what, value, value, at, why);
    s->hidden = true;
}

/* bytes: at most 64 MiB. */
static bool in_file(struct zq_scan *s, uint64_t offset, uint64_t bytes)
{
    if (!offset || offset & (zq_scan_cluster(s) - 1) || offset >= ZQ_MAX_HOST_OFFSET)
        return false;
    if (offset <= s->file_size && bytes <= s->file_size - offset)
        return true;
    zq_scan_note_past_end(s, offset + bytes);
    return false;
}

/*
 * Nothing was ever written there: a table that began behind the file's end, before the file became
 * longer. All that follows is alike, and is reported once.
 */
static bool is_blank(const uint8_t *record, size_t bytes)
{
    return zq_is_zeros(record, bytes);
}

/*
 * A record of a few bytes may give a large hole out for a table. What such tables take is bounded
 * as a whole, so that memory and time are bounded by what the file has, and not by its length.
 */
static int in_many_holes(struct zq_scan *s, uint64_t offset, uint64_t bytes, bool *many)
{
    uint64_t at = offset, end = offset + bytes, data = 0;

    for (uint64_t stop; at < end; data += stop - at, at = stop) {
        int rc = zq_scan_data(s, &at, &stop, end);

        if (rc < 0)
            return rc;
        if (at == end)
            break;
    }
    s->holes += (bytes - data) >> s->h.cluster_bits;
    *many = s->holes > MAX_HOLES;
    if (*many)
        give_up(s, "clusters of holes in tables", s->holes, offset, "more than 2^20");
    return 0;
}

/* ---- names ---- */

/* n: record, text and size, all within the file. */
static int note_name(struct zq_scan *s, struct zq_name n)
{
    int rc = n.size ? zq_be_read(s->be, s->piece, n.size, n.text) : 0;

    if (rc < 0)
        return rc;
    n.len = n.size ? (uint32_t)strnlen((const char *)s->piece, n.size) : 0;
    n.room = (uint32_t)(zq_align_up(n.text + n.size, 8) - n.text);
    return zq_names_add(&s->names, s->hooks, &n, s->piece);
}

static void judge_names(struct zq_scan *s, int kind, const char *what)
{
    char text[64];

    zq_names_sort(&s->names);
    for (size_t i = 1; i < s->names.nr; i++) {
        const struct zq_name *n = &s->names.v[i];

        if (!n->again)
            continue;
        zq_printable(text, sizeof(text), zq_names_bytes(&s->names, n), n->len);
        zq_found(s, kind, 1, "%s \"%s\" at 0x%" PRIx64 ": also that of the record at 0x%" PRIx64,
                 what, text, n->record, s->names.v[i - 1].record);
    }
}

/* ---- snapshots ---- */

/* An empty table need not lie in the file, but QEMU judges its alignment nevertheless. */
static bool l1_sane(struct zq_scan *s, const struct zq_l1 *l1, uint64_t at)
{
    uint64_t bytes = zq_table_bytes(l1->entries);

    if (bytes > ZQ_MAX_L1_BYTES)
        give_up(s, "snapshot l1_size", l1->entries, at + 8, "the L1 table is larger than 32 MiB");
    else if (bytes ? !in_file(s, l1->offset, bytes) : l1->offset & (zq_scan_cluster(s) - 1))
        give_up(s, "snapshot l1_table_offset", l1->offset, at, "not a valid table offset");
    else
        return true;
    return false;
}

static int read_facts(struct zq_scan *s, uint64_t at, struct zq_snapshot_facts *f)
{
    uint8_t raw[ZQ_SNAPSHOT_FIXED + ZQ_SNAPSHOT_EXTRA + ZQ_SNAPSHOT_COPY];
    int rc = zq_scan_read(s, raw, sizeof(raw), at);

    zq_snapshot_facts(raw, f);
    return rc;
}

/* Wrong entries cost the snapshot, and no cluster. */
static int judge_pointers(struct zq_scan *s, struct zq_geometry *zones)
{
    uint64_t bytes = zq_pointers_bytes(zones);
    uint8_t *table = zq_zalloc(s->hooks, bytes);
    int rc = table ? zq_be_read(s->be, table, (size_t)bytes, zones->table_offset) : -ENOMEM;

    if (rc == 0 && zq_entry_code_detect(zones, table, NULL) < 0)
        zq_found(s, ZQCOW2_FOUND_CORRUPTION, 1,
                 "write-pointer table of a snapshot at 0x%" PRIx64 ": no valid positions in zones",
                 zones->table_offset);
    zq_free(s->hooks, table, bytes);
    return rc;
}

/* N1: of a zoned image. A record of another program names none. */
static int scan_snapshot_pointers(struct zq_scan *s, uint64_t at)
{
    struct zq_snapshot_facts f;
    struct zq_geometry zones;
    uint64_t bytes;
    bool clash;
    int rc = read_facts(s, at, &f);

    if (rc < 0 || !s->g.layout || !s->h.copies || !f.copy_offset)
        return rc;
    if (!zq_copy_of(&s->h, &s->g, s->file_size, &f, &zones)) {
        give_up(s, "snapshot's write-pointer table", f.copy_offset, at + 64,
                "not a valid place for its zones");
        return 0;
    }
    bytes = zq_entries_bytes(zones.nr_zones);
    if ((rc = in_many_holes(s, zones.table_offset, bytes, &clash)) < 0 || clash)
        return rc;
    rc = zq_scan_claim(s, zones.table_offset, bytes, ZQ_KIND_ZONES,
                       "write-pointer table of a snapshot", &clash);
    s->hidden |= clash;
    return rc < 0 || clash ? rc : judge_pointers(s, &zones);
}

static int scan_snapshot_l1(struct zq_scan *s, const uint8_t *e, uint64_t at)
{
    struct zq_l1 l1 = {zq_be64(e), zq_be32(e + 8)};
    uint64_t bytes = zq_table_bytes(l1.entries);
    bool clash;
    int rc;

    if (!l1_sane(s, &l1, at) || !bytes)
        return 0;
    if ((rc = in_many_holes(s, l1.offset, bytes, &clash)) < 0 || clash)
        return rc;
    rc = zq_scan_claim(s, l1.offset, bytes, ZQ_KIND_L1, "L1 table of a snapshot", &clash);
    s->hidden |= clash;
    if (rc == 0 && !clash)
        s->l1s[s->nr_l1s++] = l1;
    return rc;
}

/* Without the padding to 8. qcow2 specification, snapshot table: extra data, ID and name follow. */
static uint64_t entry_bytes(const uint8_t *e)
{
    return SNAPSHOT_FIXED + (uint64_t)zq_be32(e + 36) + zq_be16(e + 12) + zq_be16(e + 14);
}

/* Blank, or what has no ID, no L1 and no extra data: the offset of the table may be wrong. */
static bool is_no_record(const uint8_t *e)
{
    return !zq_be32(e + 8) && !zq_be16(e + 12) && !zq_be32(e + 36);
}

/* *pos moves behind the entry; false: the table cannot be followed further. */
static bool next_snapshot(struct zq_scan *s, const uint8_t *e, uint64_t *pos)
{
    uint32_t extra = zq_be32(e + 36);
    uint64_t bytes = entry_bytes(e);

    if (extra > MAX_SNAPSHOT_EXTRA) {
        give_up(s, "snapshot extra_data_size", extra, *pos + 36, "more than 1024");
        return false;
    }
    if (s->h.version >= 3 ? is_no_record(e) : is_blank(e, SNAPSHOT_FIXED)) {
        give_up(s, "snapshot table entry", 0, *pos, "is blank");
        return false;
    }
    if (s->h.version >= 3 && extra < SNAPSHOT_EXTRA)
        zq_found(s, ZQCOW2_FOUND_CORRUPTION, 1,
                 "snapshot extra_data_size %" PRIu32 " at 0x%" PRIx64 ": version 3 needs 16", extra,
                 *pos + 36);
    if (bytes > s->file_size - *pos || *pos + bytes - s->h.snapshots_offset > MAX_SNAPSHOT_TABLE) {
        give_up(s, "snapshot table entry", bytes, *pos, "runs past the file's end or 64 MiB");
        return false;
    }
    *pos = zq_align_up(*pos + bytes, 8);
    return true;
}

/* How many entries can be followed, and where the last of them ends. */
static int measure_snapshots(struct zq_scan *s, uint32_t *nr, uint64_t *end)
{
    uint64_t pos = s->h.snapshots_offset;
    uint8_t e[SNAPSHOT_FIXED];

    for (*nr = 0; *nr < zq_min(s->h.nb_snapshots, ZQ_MAX_SNAPSHOTS); ++*nr) {
        int rc;

        if (pos >= s->file_size || s->file_size - pos < SNAPSHOT_FIXED) {
            zq_scan_note_past_end(s, pos + SNAPSHOT_FIXED);
            give_up(s, "nb_snapshots", s->h.nb_snapshots, 60, "the table runs past the file's end");
            break;
        }
        if ((rc = zq_scan_read(s, e, sizeof(e), pos)) < 0)
            return rc;
        if (!next_snapshot(s, e, &pos))
            break;
    }
    s->list.nr = *nr;
    s->list.end = pos;
    *end = zq_max(pos, s->h.snapshots_offset + 1);
    return 0;
}

static int note_id(struct zq_scan *s, const uint8_t *e, uint64_t at)
{
    uint64_t text = at + SNAPSHOT_FIXED + zq_be32(e + 36);

    return note_name(s, (struct zq_name){.record = at, .text = text, .size = zq_be16(e + 12)});
}

/* False: there is nothing to follow, and the snapshots are somewhere. */
static bool judge_place(struct zq_scan *s)
{
    struct zqcow2_error why;

    if (!s->h.snapshots_wrong && s->h.nb_snapshots <= ZQ_MAX_SNAPSHOTS)
        return true;
    (void)zq_header_judge_snapshots(&s->h, s->file_size, &why);
    zq_found(s, ZQCOW2_FOUND_CORRUPTION, 1, "%s", why.text);
    if (s->h.snapshots_offset < ZQ_MAX_HOST_OFFSET)
        zq_scan_note_past_end(s, s->h.snapshots_offset + s->h.snapshots_bytes);
    s->hidden = true;
    return !s->h.snapshots_wrong;
}

/*
 * Where the records are, and how many; no place: there are none. What is found here is all that is
 * wrong with the two fields of the header; with records there is more.
 */
static int find_list(struct zq_scan *s, uint32_t *nr, uint64_t *end)
{
    uint64_t before = s->res->corruptions;
    int rc = 0;

    *nr = 0;
    if (!s->h.nb_snapshots) {
        if (in_file(s, s->h.snapshots_offset, SNAPSHOT_FIXED))
            s->list.end = s->h.snapshots_offset;
    } else if (judge_place(s)) {
        rc = measure_snapshots(s, nr, end);
    }
    s->list.found = s->res->corruptions - before;
    return rc;
}

/* The table is claimed before it is followed: what lies on other things is no list of snapshots. */
int zq_scan_snapshots(struct zq_scan *s)
{
    uint64_t pos = s->h.snapshots_offset, end = 0;
    uint8_t e[SNAPSHOT_FIXED];
    bool clash;
    uint32_t nr;
    int rc = find_list(s, &nr, &end);

    if (rc < 0 || !end)
        return rc;
    if ((rc = zq_scan_claim(s, pos, end - pos, ZQ_KIND_SNAPSHOTS, "snapshot table", &clash)) < 0)
        return rc;
    if (clash) {
        s->hidden = true;
        s->list.nr = nr = 0;
    }
    for (uint32_t i = 0; i < nr; i++) {
        if ((rc = zq_scan_read(s, e, sizeof(e), pos)) < 0 || (rc = note_id(s, e, pos)) < 0 ||
            (rc = scan_snapshot_l1(s, e, pos)) < 0 || (rc = scan_snapshot_pointers(s, pos)) < 0)
            return rc;
        pos += zq_align_up(entry_bytes(e), 8);
    }
    judge_names(s, ZQCOW2_FOUND_WARNING, "snapshot ID");
    zq_names_free(&s->names, s->hooks);
    return 0;
}

/* ---- bitmaps ---- */

static int scan_bitmap_entry(struct zq_scan *s, void *arg, uint64_t index, uint64_t at,
                             uint64_t *entry)
{
    const struct zq_bounds b = zq_scan_bounds(s);
    uint64_t host, cluster;
    const char *why;
    unsigned on;
    bool ones;

    (void)arg;
    (void)index;
    why = zq_bitmap_read(&b, *entry, &host, &ones);
    if (why) {
        zq_scan_note_past_end(s, host + zq_scan_cluster(s));
        give_up(s, "bitmap table entry", *entry, at, why);
    }
    if (why || ones)
        return 0;
    cluster = host >> s->h.cluster_bits;
    on = zq_counts_kind(&s->counts, cluster) & (ZQ_KINDS_FIXED | ZQ_KIND_L2);
    if (!on)
        return zq_counts_add(&s->counts, cluster, 1, ZQ_KIND_DATA, NULL);
    zq_found(s, ZQCOW2_FOUND_CORRUPTION, 1,
             "bitmap table entry at 0x%" PRIx64 " is 0x%" PRIx64 ": points into the %s", at, *entry,
             zq_kind_name(on));
    s->hidden = true;
    s->rebuild |= on & ZQ_KIND_REFCOUNTS;
    zq_scan_note_lower(s, cluster, ZQ_BY_LOWER);
    return zq_scan_count_lost(s, cluster);
}

/*
 * One bit per 2^granularity bytes of the disk, in whole clusters (qcow2 specification, bitmap
 * table).
 */
static uint64_t bitmap_entries(const struct zq_scan *s, unsigned granularity)
{
    uint64_t bits = zq_div_up(s->h.virtual_size, (uint64_t)1 << granularity);

    return zq_div_up(zq_div_up(bits, 8), zq_scan_cluster(s));
}

/* What other programs refuse, but does not stand in the way of following the table. */
static void judge_bitmap(struct zq_scan *s, const uint8_t *e, uint64_t at)
{
    uint32_t entries = zq_be32(e + 8), flags = zq_be32(e + 12), name = zq_be16(e + 18);
    uint32_t extra = zq_be32(e + 20);
    bool known = e[17] >= ZQ_MIN_GRANULARITY && e[17] <= ZQ_MAX_GRANULARITY;

    if (!known)
        zq_found(s, ZQCOW2_FOUND_CORRUPTION, 1,
                 "bitmap granularity_bits %u at 0x%" PRIx64 ": must be 9 to 31", e[17], at + 17);
    if (!name || name > ZQ_MAX_BITMAP_NAME)
        zq_found(s, ZQCOW2_FOUND_CORRUPTION, 1,
                 "bitmap name_size %" PRIu32 " at 0x%" PRIx64 ": must be 1 to 1023", name, at + 18);
    if (extra)
        zq_found(s, ZQCOW2_FOUND_CORRUPTION, 1,
                 "bitmap extra_data_size %" PRIu32 " at 0x%" PRIx64 ": must be 0", extra, at + 20);
    if (!entries || (known && !(flags & ZQ_BITMAP_IN_USE) && entries != bitmap_entries(s, e[17])))
        zq_found(s, ZQCOW2_FOUND_CORRUPTION, 1,
                 "bitmap_table_size %" PRIu32 " at 0x%" PRIx64 ": the table does not fit the disk",
                 entries, at + 8);
}

static int scan_bitmap(struct zq_scan *s, const uint8_t *e, uint64_t at)
{
    uint64_t offset = zq_be64(e), bytes = zq_table_bytes(zq_be32(e + 8));
    bool clash;
    int rc;

    if (zq_be32(e + 12) & ~ZQ_BITMAP_KNOWN || e[16] != ZQ_BITMAP_TRACKING) {
        give_up(s, "bitmap flags and type", zq_be64(e + 12), at + 12, "unknown value");
        return 0;
    }
    if (bytes > ZQ_MAX_BITMAP_IO) {
        give_up(s, "bitmap_table_size", zq_table_count(bytes), at + 8,
                "the table is larger than 64 MiB");
        return 0;
    }
    judge_bitmap(s, e, at);
    if (!bytes)
        return 0;
    if (!in_file(s, offset, bytes)) {
        give_up(s, "bitmap_table_offset", offset, at, "not a valid table offset");
        return 0;
    }
    if ((rc = in_many_holes(s, offset, bytes, &clash)) < 0 || clash)
        return rc;
    rc = zq_scan_claim(s, offset, bytes, ZQ_KIND_BITMAPS, "bitmap table", &clash);
    if (rc < 0 || clash) {
        s->hidden |= clash;
        return rc;
    }
    return zq_walk_entries(s, offset, zq_table_count(bytes), scan_bitmap_entry, NULL);
}

/* e: the extension's data. True: the directory lies in the file. */
static bool bitmaps_sane(struct zq_scan *s, const uint8_t *e)
{
    uint32_t nr = zq_be32(e);
    uint64_t bytes = zq_be64(e + 8), offset = zq_be64(e + 16);

    if (!nr || nr > ZQ_MAX_BITMAPS)
        give_up(s, "nb_bitmaps", nr, s->h.bitmaps_offset, "must be 1 to 65535");
    else if (zq_be32(e + 4))
        give_up(s, "bitmaps extension's reserved field", zq_be32(e + 4), s->h.bitmaps_offset + 4,
                "must be 0");
    else if (bytes > ZQ_MAX_BITMAP_IO)
        give_up(s, "bitmap_directory_size", bytes, s->h.bitmaps_offset + 8, "more than 64 MiB");
    else if (bytes < (uint64_t)nr * ZQ_BITMAP_FIXED || !in_file(s, offset, bytes))
        give_up(s, "bitmap_directory_offset", offset, s->h.bitmaps_offset + 16,
                "not a valid directory offset");
    else
        return true;
    return false;
}

/* One without a name is reported by itself. */
static int note_bitmap_name(struct zq_scan *s, const uint8_t *e, uint64_t at)
{
    uint64_t text = at + ZQ_BITMAP_FIXED + zq_be32(e + 20);
    uint16_t size = zq_be16(e + 18);

    return size ? note_name(s, (struct zq_name){.record = at, .text = text, .size = size}) : 0;
}

static int scan_directory(struct zq_scan *s, uint32_t nr, uint64_t pos, uint64_t end)
{
    uint8_t e[ZQ_BITMAP_FIXED];

    for (uint32_t i = 0; i < nr; i++) {
        uint64_t at = pos;
        int rc;

        if (end - pos < ZQ_BITMAP_FIXED) {
            give_up(s, "nb_bitmaps", nr, s->h.bitmaps_offset, "more than the directory can hold");
            return 0;
        }
        if ((rc = zq_be_read(s->be, e, sizeof(e), pos)) < 0)
            return rc;
        if (is_blank(e, sizeof(e))) {
            give_up(s, "bitmap directory entry", i, at, "is blank");
            return 0;
        }
        pos += zq_align_up(ZQ_BITMAP_FIXED + (uint64_t)zq_be32(e + 20) + zq_be16(e + 18), 8);
        if (pos > end) {
            give_up(s, "bitmap directory entry", i, at, "runs past the directory's end");
            return 0;
        }
        if ((rc = note_bitmap_name(s, e, at)) < 0 || (rc = scan_bitmap(s, e, at)) < 0)
            return rc;
    }
    if (pos < end) /* of bitmaps that it does not count, or of an entry that is too short */
        give_up(s, "nb_bitmaps", nr, s->h.bitmaps_offset, "fewer than the directory holds");
    return 0;
}

/* bitmaps_offset: of the extension's 24 bytes in the header cluster; 0: there is none. */
int zq_scan_bitmaps(struct zq_scan *s)
{
    uint8_t e[24];
    uint64_t bytes, offset;
    bool clash;
    int rc;

    if (!s->h.bitmaps_offset)
        return 0;
    if ((rc = zq_be_read(s->be, e, sizeof(e), s->h.bitmaps_offset)) < 0)
        return rc;
    if (!bitmaps_sane(s, e))
        return 0;
    bytes = zq_be64(e + 8);
    offset = zq_be64(e + 16);
    rc = zq_scan_claim(s, offset, bytes, ZQ_KIND_BITMAPS, "bitmap directory", &clash);
    s->hidden |= clash;
    if (rc < 0 || clash)
        return rc;
    rc = scan_directory(s, zq_be32(e), offset, offset + bytes);
    judge_names(s, ZQCOW2_FOUND_CORRUPTION, "bitmap name");
    return rc;
}
