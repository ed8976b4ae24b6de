/* SPDX-License-Identifier: MIT */
/*
 * Sets counts of the header right that stand in the way of reading it, where the rest of the image
 * says what they must be. What they hide is not guessed: a snapshot whose record cannot be followed
 * may be there, and then the count stays.
 */
#include "check/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/bytes.h"
#include "check/genuine.h"
#include "format/l2entry.h"

#define HDR_NR_SNAPSHOTS (ZQ_HDR_SNAPSHOTS - 4)
#define MAX_EXTRA        1024u

struct fix {
    struct zqcow2_backend *be;
    uint64_t file_size, cluster;
    struct zq_form form;
    uint8_t *raw; /* owned: the header's cluster, as it is to be */
    uint32_t entries, snapshots;
};

static bool misplaced(const struct fix *f, uint64_t offset)
{
    return !offset || offset & (f->cluster - 1) || offset >= f->file_size;
}

/*
 * A table that is too short gets longer within the clusters that it has anyway; one that is larger
 * than the format or the file allows gets as long as the disk needs.
 */
static void fix_l1_size(struct fix *f)
{
    uint64_t offset = zq_be64(f->raw + ZQ_HDR_L1_OFFSET), size = zq_be64(f->raw + ZQ_HDR_SIZE);
    uint64_t bytes = zq_table_bytes(zq_be32(f->raw + ZQ_HDR_L1_ENTRIES)), need, room;

    if (misplaced(f, offset) || size > ZQ_MAX_VIRTUAL_SIZE)
        return;
    need = zq_table_bytes(zq_l1_needed(&f->form, size));
    room = zq_align_up(zq_max(bytes, 1), f->cluster);
    if (need > f->file_size - offset || need > zq_min(room, ZQ_MAX_L1_BYTES) ||
        (bytes >= need && bytes <= zq_min(f->file_size - offset, ZQ_MAX_L1_BYTES)))
        return;
    zq_put_be32(f->raw + ZQ_HDR_L1_ENTRIES, (uint32_t)zq_table_count(need));
}

/* 1: there is a record, and *pos moves behind it. 0: there cannot be any. */
static int next_record(struct fix *f, bool first, uint64_t *pos, bool *unknown)
{
    uint8_t raw[ZQ_SNAPSHOT_FIXED];
    struct zq_snapshot r;
    uint64_t end;
    int rc;

    if (*pos > f->file_size || f->file_size - *pos < sizeof(raw))
        return 0;
    if ((rc = zq_be_read(f->be, raw, sizeof(raw), *pos)) < 0)
        return rc;
    if (zq_is_zeros(raw, sizeof(raw)))
        return 0;
    zq_snapshot_read(raw, &r);
    end = *pos + sizeof(raw) + r.extra + r.id_bytes + r.name_bytes; /* the file may end there */
    *unknown = r.extra > MAX_EXTRA || end > f->file_size ||
               (first && !zq_record_is_genuine(&(struct zq_bounds){f->form, f->file_size}, &r));
    *pos += r.bytes;
    return 1;
}

/* Without an offset there is no table. At the first record the offset may be what is wrong. */
static int fix_snapshots(struct fix *f)
{
    uint64_t pos = zq_be64(f->raw + ZQ_HDR_SNAPSHOTS);
    uint32_t nr = zq_be32(f->raw + HDR_NR_SNAPSHOTS), n = 0;
    bool unknown = false;
    int more = 1;

    if (!pos)
        zq_put_be32(f->raw + HDR_NR_SNAPSHOTS, 0);
    if (misplaced(f, pos))
        return 0;
    for (; n < nr && n <= ZQ_MAX_SNAPSHOTS && !unknown && more > 0; n += more > 0)
        more = next_record(f, !n, &pos, &unknown);
    if (more || !n || unknown)
        return more < 0 ? more : 0;
    zq_put_be32(f->raw + HDR_NR_SNAPSHOTS, n);
    return 0;
}

static void found(const struct zqcow2_check_options *opt, const char *field, unsigned at,
                  uint32_t old, uint32_t now)
{
    char text[128];

    snprintf(text, sizeof(text), "%s %" PRIu32 " at byte %u should be %" PRIu32, field, old, at,
             now);
    opt->found(opt->arg, ZQCOW2_FOUND_CORRUPTION, text);
    opt->found(opt->arg, ZQCOW2_FOUND_REPAIRED, text);
}

/* One sector, and only if nothing else is wrong with the header: it may be one we do not know. */
static int write_back(struct fix *f, const struct zqcow2_check_options *opt, uint64_t *done)
{
    uint32_t entries = zq_be32(f->raw + ZQ_HDR_L1_ENTRIES);
    uint32_t snapshots = zq_be32(f->raw + HDR_NR_SNAPSHOTS);
    struct zqcow2_error ignored;
    struct zq_header h;
    int rc;

    if ((entries == f->entries && snapshots == f->snapshots) ||
        zq_header_parse(&h, f->raw, (size_t)zq_min(f->cluster, f->file_size), f->file_size, false,
                        &ignored) < 0)
        return 0;
    rc = zq_be_write(f->be, f->raw + ZQ_HDR_L1_ENTRIES, ZQ_HDR_SNAPSHOTS - ZQ_HDR_L1_ENTRIES,
                     ZQ_HDR_L1_ENTRIES);
    if (rc < 0 || (rc = zq_be_flush(f->be)) < 0)
        return rc;
    *done = (uint64_t)(entries != f->entries) + (snapshots != f->snapshots);
    if (opt->found && entries != f->entries)
        found(opt, "l1_size", ZQ_HDR_L1_ENTRIES, f->entries, entries);
    if (opt->found && snapshots != f->snapshots)
        found(opt, "nb_snapshots", HDR_NR_SNAPSHOTS, f->snapshots, snapshots);
    return 0;
}

static int read_header(struct fix *f, const struct zqcow2_hooks *hooks)
{
    uint8_t first[ZQ_HDR_COMPRESSION];
    struct zqcow2_error ignored;
    uint32_t bits;
    int rc = zq_be_length(f->be, &f->file_size);

    if (rc < 0 || f->file_size < sizeof(first))
        return rc;
    rc = zq_be_read(f->be, first, sizeof(first), 0);
    if (rc < 0 || zq_header_peek(first, sizeof(first), &bits, &ignored) < 0)
        return rc < 0 ? rc : 0; /* what is wrong, check says */
    f->cluster = (uint64_t)1 << bits;
    f->form = (struct zq_form){.cluster_bits = bits, .version = zq_be32(first + 4)};
    f->form.extended =
        f->form.version >= 3 && zq_be64(first + ZQ_HDR_INCOMPAT) & ZQ_INCOMPAT_EXTENDED_L2;
    f->entries = zq_be32(first + ZQ_HDR_L1_ENTRIES);
    f->snapshots = zq_be32(first + HDR_NR_SNAPSHOTS);
    f->raw = zq_zalloc(hooks, (size_t)f->cluster);
    if (!f->raw)
        return -ENOMEM;
    return zq_be_read(f->be, f->raw, (size_t)zq_min(f->cluster, f->file_size), 0);
}

int zq_check_fix_header(struct zqcow2_backend *be, const struct zqcow2_hooks *hooks,
                        const struct zqcow2_check_options *opt, uint64_t *done)
{
    struct fix f = {.be = be};
    int rc = read_header(&f, hooks);

    *done = 0;
    if (rc == 0 && f.raw) {
        fix_l1_size(&f);
        rc = fix_snapshots(&f);
    }
    if (rc == 0 && f.raw)
        rc = write_back(&f, opt, done);
    zq_free(hooks, f.raw, (size_t)f.cluster);
    return rc;
}
