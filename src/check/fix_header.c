/* SPDX-License-Identifier: MIT */
/* Sets l1_size right where it stands in the way of reading, and the disk says what it must be. */
#include "check/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/bytes.h"
#include "check/scan.h"
#include "format/l2entry.h"

struct fix {
    struct zqcow2_backend *be;
    const struct zqcow2_hooks *hooks;
    uint64_t file_size, cluster;
    struct zq_form form;
    uint8_t *raw; /* owned: the header's cluster, as it is to be */
    uint32_t entries;
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

static void found(const struct zqcow2_check_options *opt, uint32_t old, uint32_t now)
{
    char text[128];

    if (!opt->found)
        return;
    snprintf(text, sizeof(text), "l1_size %" PRIu32 " at byte %d should be %" PRIu32, old,
             ZQ_HDR_L1_ENTRIES, now);
    opt->found(opt->arg, ZQCOW2_FOUND_CORRUPTION, text);
    opt->found(opt->arg, ZQCOW2_FOUND_REPAIRED, text);
}

/* One sector, durable before anything relies on it. */
static int put_entries(struct fix *f, uint32_t entries)
{
    uint8_t raw[4];
    int rc;

    zq_put_be32(raw, entries);
    rc = zq_be_write(f->be, raw, sizeof(raw), ZQ_HDR_L1_ENTRIES);
    return rc < 0 ? rc : zq_be_flush(f->be);
}

/*
 * A table that is too short for the disk: the size of the disk or of clusters may be what is wrong.
 * Then the longer table is not sound, and were it written, the next repair would drop what is.
 */
static bool is_sound(const struct fix *f, uint32_t entries)
{
    const struct zq_scan s = {.be = f->be, .hooks = f->hooks};
    uint64_t corruptions;
    int rc = zq_check_trial(&s, (struct zq_trial){ZQ_HDR_L1_ENTRIES, entries}, &corruptions);

    return rc == 0 && !corruptions;
}

/* Only if nothing else is wrong with the header, which may be one that we do not know. */
static int write_back(struct fix *f, const struct zqcow2_check_options *opt, uint64_t *done)
{
    size_t len = (size_t)zq_min(f->cluster, f->file_size);
    uint32_t entries = zq_be32(f->raw + ZQ_HDR_L1_ENTRIES);
    struct zqcow2_error ignored;
    struct zq_header h;
    int rc;

    if (entries == f->entries ||
        zq_header_parse(&h, f->raw, len, f->file_size, false, &ignored) < 0)
        return 0;
    if (entries > f->entries && !is_sound(f, entries))
        return 0;
    rc = put_entries(f, entries);
    if (rc < 0)
        return rc;
    *done = 1;
    found(opt, f->entries, entries);
    return 0;
}

static int read_header(struct fix *f)
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
    f->raw = zq_zalloc(f->hooks, (size_t)f->cluster);
    if (!f->raw)
        return -ENOMEM;
    return zq_be_read(f->be, f->raw, (size_t)zq_min(f->cluster, f->file_size), 0);
}

int zq_check_fix_header(struct zqcow2_backend *be, const struct zqcow2_hooks *hooks,
                        const struct zqcow2_check_options *opt, uint64_t *done)
{
    struct fix f = {.be = be, .hooks = hooks};
    int rc = read_header(&f);

    *done = 0;
    if (rc == 0 && f.raw) {
        fix_l1_size(&f);
        rc = write_back(&f, opt, done);
    }
    zq_free(hooks, f.raw, (size_t)f.cluster);
    return rc;
}
