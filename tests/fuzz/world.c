/* SPDX-License-Identifier: MIT */
/* What all targets do with an image, each call within its bounds. */
#include "fuzz/target.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE 65536u

void world_begin(struct world *w, const struct input *in)
{
    memset(w, 0, sizeof(*w));
    input_apply(in, &w->disk);
    w->hooks = disk_hooks(&w->disk);
    w->be = disk_backend(&w->disk);
}

void world_copy(struct world *w, const struct world *from)
{
    memset(w, 0, sizeof(*w));
    disk_copy(&w->disk, &from->disk);
    w->hooks = disk_hooks(&w->disk);
    w->be = disk_backend(&w->disk);
}

void world_end(struct world *w)
{
    zqcow2_backend_close(w->be);
    if (w->disk.live)
        fuzz_fail("%llu bytes of heap are still live", (unsigned long long)w->disk.live);
    disk_free(&w->disk);
}

int world_open(struct world *w, uint32_t flags)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    int rc;

    o.flags = flags | ZQCOW2_OPEN_BORROW;
    o.hooks = &w->hooks;
    w->err = (struct zqcow2_error){0};
    w->disk.written = 0;
    disk_allow(&w->disk, 0);
    rc = zqcow2_open(w->be, &o, &w->img, &w->err);
    if (rc && (w->err.code != rc || !w->err.text[0]))
        fuzz_fail("open: %d, and the text says %d \"%s\"", rc, w->err.code, w->err.text);
    if (rc && w->disk.live)
        fuzz_fail("open fails and leaves %llu bytes", (unsigned long long)w->disk.live);
    if (!(flags & ZQCOW2_OPEN_RDWR) && w->disk.written)
        fuzz_fail("open for reading writes");
    if (rc)
        w->img = NULL;
    return rc;
}

int world_close(struct world *w)
{
    int rc;

    disk_allow(&w->disk, 0);
    rc = zqcow2_close(w->img);
    w->img = NULL;
    if (w->disk.live)
        fuzz_fail("close leaves %llu bytes", (unsigned long long)w->disk.live);
    return rc;
}

static void keep_text(void *arg, int kind, const char *text)
{
    static const char *const names[] = {"?", "warning", "leak", "corruption", "repaired"};
    struct world *w = arg;
    size_t n = strlen(w->found);

    if (kind < ZQCOW2_FOUND_WARNING || kind > ZQCOW2_FOUND_REPAIRED || !text[0])
        fuzz_fail("check finds %d: \"%s\"", kind, text);
    snprintf(w->found + n, sizeof(w->found) - n, "%s: %s\n", names[kind], text);
}

int world_check(struct world *w, uint32_t flags)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    int rc;

    o.flags = flags;
    o.hooks = &w->hooks;
    o.found = keep_text;
    o.arg = w;
    w->found[0] = '\0';
    w->err = (struct zqcow2_error){0};
    w->res = (struct zqcow2_check_result)ZQCOW2_CHECK_RESULT_INIT;
    w->disk.written = 0;
    disk_allow(&w->disk, 0);
    rc = zqcow2_check(w->be, &o, &w->res, &w->err);
    if (rc && !w->err.text[0])
        fuzz_fail("check: %d, without a text", rc);
    if (!flags && w->disk.written)
        fuzz_fail("check writes");
    return rc;
}

/* The file covers what info says, and more once a write in place has passed an end inside a
 * cluster. */
struct zqcow2_info world_info(struct world *w)
{
    struct zqcow2_info info = ZQCOW2_INFO_INIT;

    if (zqcow2_get_info(w->img, &info) != 0 || info.virtual_size % 512 ||
        info.file_size > w->disk.length || info.block_size != 512)
        fuzz_fail("info: %llu bytes in a file of %llu, which has %llu",
                  (unsigned long long)info.virtual_size, (unsigned long long)info.file_size,
                  (unsigned long long)w->disk.length);
    return info;
}

/* ---- zones ---- */

struct sums {
    uint64_t next;
    uint32_t open, active, forced;
};

static void one_zone(const struct zqcow2_zone *z, const struct zqcow2_info *info, uint32_t number,
                     struct sums *sum)
{
    uint64_t left = info->virtual_size - sum->next;
    uint64_t length = left < info->zone_size ? left : info->zone_size;
    bool sequential = z->type == ZQCOW2_ZONE_SEQWRITE_REQ, ok = z->start == sum->next;

    ok = ok && z->length == length && z->capacity <= z->length && z->capacity;
    ok = ok && sequential == (number >= info->nr_conventional);
    switch (z->state) {
    case ZQCOW2_ZONE_NOT_WP: ok = ok && !sequential && z->write_pointer == z->start; break;
    case ZQCOW2_ZONE_EMPTY: ok = ok && sequential && z->write_pointer == z->start; break;
    case ZQCOW2_ZONE_FULL: ok = ok && sequential && z->write_pointer == z->start + z->length; break;
    case ZQCOW2_ZONE_IMP_OPEN:
    case ZQCOW2_ZONE_EXP_OPEN:
    case ZQCOW2_ZONE_CLOSED:
        ok = ok && sequential && z->write_pointer >= z->start && z->write_pointer % 512 == 0 &&
             z->write_pointer < z->start + z->capacity;
        sum->active++;
        sum->open += z->state != ZQCOW2_ZONE_CLOSED;
        break;
    case ZQCOW2_ZONE_RDONLY:
    case ZQCOW2_ZONE_OFFLINE:
        ok = ok && sequential && z->write_pointer == UINT64_MAX;
        sum->forced++;
        break;
    default: ok = false;
    }
    if (!ok)
        fuzz_fail("zone %u: start %llu, length %llu, capacity %llu, pointer %llu, state %u", number,
                  (unsigned long long)z->start, (unsigned long long)z->length,
                  (unsigned long long)z->capacity, (unsigned long long)z->write_pointer, z->state);
    sum->next += z->length;
}

void world_zones(struct world *w)
{
    struct zqcow2_info info = world_info(w);
    struct zqcow2_zone zones[64];
    struct sums sum = {0};
    uint32_t nr = 64, n = 0;

    if (!(info.flags & ZQCOW2_INFO_ZONED)) {
        if (zqcow2_zone_report(w->img, 0, zones, &nr) != ZQCOW2_ENOTZONED)
            fuzz_fail("an image without zones reports some");
        return;
    }
    for (; sum.next < info.virtual_size && n < 65536; n += nr) {
        nr = 64;
        disk_allow(&w->disk, 0);
        if (zqcow2_zone_report(w->img, sum.next, zones, &nr) != 0 || !nr)
            fuzz_fail("no report at %llu", (unsigned long long)sum.next);
        for (uint32_t i = 0; i < nr; i++)
            one_zone(&zones[i], &info, n + i, &sum);
    }
    /* A read-only or offline zone that is partly written is active: the report does not say so. */
    if (sum.next == info.virtual_size &&
        (n != info.nr_zones || sum.open != info.open_zones || sum.active > info.active_zones ||
         sum.active + sum.forced < info.active_zones))
        fuzz_fail("%u zones, %u open, %u active, %u forced; info says %u, %u, %u", n, sum.open,
                  sum.active, sum.forced, info.nr_zones, info.open_zones, info.active_zones);
}

/* ---- reads ---- */

static void compare(const uint8_t *have, const uint8_t *want, uint64_t len, uint64_t off,
                    const struct zqcow2_extent *e)
{
    for (uint64_t i = 0; i < len; i++) {
        if (have[i] != (want ? want[i] : 0))
            fuzz_fail("byte 0x%llx, kind %u, host 0x%llx: 0x%02x instead of 0x%02x",
                      (unsigned long long)(off + i), e->kind, (unsigned long long)e->host, have[i],
                      want ? want[i] : 0);
    }
}

/* What was reported for it reads so. */
static void read_piece(struct world *w, const struct zqcow2_extent *e, uint64_t off, uint64_t skip,
                       uint64_t len)
{
    uint8_t *buf = malloc(len), *want = malloc(len);
    int rc;

    disk_allow(&w->disk, len);
    rc = zqcow2_read(w->img, buf, len, off + skip);
    if (e->kind == ZQCOW2_BLOCK_DATA && e->host != UINT64_MAX) {
        disk_get(&w->disk, want, len, e->host + skip);
        if (!rc)
            compare(buf, want, len, off + skip, e);
    } else if (e->kind != ZQCOW2_BLOCK_COMPRESSED && !rc) {
        compare(buf, NULL, len, off + skip, e);
    }
    if (rc && e->kind != ZQCOW2_BLOCK_COMPRESSED)
        fuzz_fail("0x%llx has kind %u, and does not read: %d", (unsigned long long)(off + skip),
                  e->kind, rc);
    free(buf);
    free(want);
}

static void read_extent(struct world *w, const struct zqcow2_extent *e, uint64_t off)
{
    uint64_t n = e->length < PIECE ? e->length : PIECE;

    read_piece(w, e, off, 0, n);
    if (e->length > PIECE)
        read_piece(w, e, off, e->length - n, n);
}

void world_read(struct world *w, unsigned most)
{
    struct zqcow2_info info = world_info(w);
    uint64_t off = 0;

    for (; off < info.virtual_size && most > 0; most--) {
        struct zqcow2_extent e = ZQCOW2_EXTENT_INIT;
        uint64_t len = info.virtual_size - off;
        int rc;

        disk_allow(&w->disk, 0);
        rc = zqcow2_block_status(w->img, off, len, &e);
        if (rc) {
            uint64_t next = (off / info.cluster_size + 1) * info.cluster_size;

            off = next < info.virtual_size ? next : info.virtual_size;
            continue;
        }
        if (!e.length || e.length > len || e.length % 512 || e.kind > ZQCOW2_BLOCK_COMPRESSED)
            fuzz_fail("block status at 0x%llx: kind %u, length %llu", (unsigned long long)off,
                      e.kind, (unsigned long long)e.length);
        read_extent(w, &e, off);
        off += e.length;
    }
}
