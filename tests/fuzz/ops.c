/* SPDX-License-Identifier: MIT */
/*
 * Random operations on an image, damaged or not, with reopening between them; the tail is their
 * list. An image without a record is sound: there what was written reads back, and at the end check
 * finds nothing.
 */
#include "fuzz/target.h"

#include <stdlib.h>
#include <string.h>

#define MOST 65536u

const struct fuzz_target fuzz_target = {(1u << F_GROUPS) - 1, true};

struct run {
    struct world w;
    struct zqcow2_info info;
    const uint8_t *p, *end;
    bool sound;
    uint8_t buf[MOST], back[MOST];
};

static uint64_t take(struct run *r, unsigned n)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < n && r->p < r->end; i++)
        v |= (uint64_t)*r->p++ << i * 8;
    return v;
}

/* Sectors of the device, near its start, near its end or anywhere. */
static uint64_t place(struct run *r)
{
    uint64_t v = take(r, 2), sectors = r->info.virtual_size / 512;

    if (!sectors)
        return 0;
    return (v & 0x8000 ? sectors - 1 - v % 0x8000 % sectors : v % sectors) * 512;
}

static void wrote(struct run *r, int rc, uint64_t len, uint64_t off)
{
    if (rc || !r->sound)
        return;
    disk_allow(&r->w.disk, len);
    if (zqcow2_read(r->w.img, r->back, len, off) != 0 || memcmp(r->buf, r->back, len) != 0)
        fuzz_fail("%llu bytes at 0x%llx do not read as they were written", (unsigned long long)len,
                  (unsigned long long)off);
}

static void io(struct run *r, unsigned op, uint64_t off, uint64_t len)
{
    unsigned flags = op & 16 ? ZQCOW2_FUA : 0;
    int rc;

    memset(r->buf, op & 8 ? (int)(off >> 9 | 1) & 0xff : 0, len);
    switch (op % 6) {
    case 0: (void)zqcow2_read(r->w.img, r->buf, len, off); break;
    case 1:
        rc = zqcow2_write(r->w.img, r->buf, len, off, flags);
        wrote(r, rc, len, off);
        break;
    case 2:
        off = r->info.zone_size ? off / r->info.zone_size * r->info.zone_size : off;
        rc = zqcow2_append(r->w.img, r->buf, len, &off, flags);
        wrote(r, rc, len, off);
        break;
    case 3:
        memset(r->buf, 0, len);
        rc = zqcow2_write_zeroes(r->w.img, len, off, flags);
        wrote(r, rc, len, off);
        break;
    case 4: (void)zqcow2_discard(r->w.img, len, off, flags); break;
    default: (void)zqcow2_flush(r->w.img);
    }
}

static void manage(struct run *r, unsigned op, uint64_t off)
{
    uint64_t size = r->info.zone_size, len;

    if (!size) {
        (void)zqcow2_zone_reset(r->w.img, 0, 512, 0);
        return;
    }
    off = off / size * size;
    len = r->info.virtual_size - off < size ? r->info.virtual_size - off : size;
    if (op & 8) {
        off = 0;
        len = r->info.virtual_size;
    }
    switch (op % 4) {
    case 0: (void)zqcow2_zone_open(r->w.img, off, len, 0); break;
    case 1: (void)zqcow2_zone_close(r->w.img, off, len, 0); break;
    case 2: (void)zqcow2_zone_finish(r->w.img, off, len, 0); break;
    default: (void)zqcow2_zone_reset(r->w.img, off, len, 0);
    }
}

/* False: it does not open. */
static bool reopen(struct run *r)
{
    if (r->w.img) {
        int rc = world_close(&r->w);

        if (rc && r->sound)
            fuzz_fail("close: %d", rc);
    }
    if (world_open(&r->w, ZQCOW2_OPEN_RDWR) != 0) {
        if (r->sound)
            fuzz_fail("a sound image does not open: %s", r->w.err.text);
        return false;
    }
    r->info = world_info(&r->w);
    return true;
}

static bool step(struct run *r)
{
    unsigned op = (unsigned)take(r, 1), kind = op >> 5;
    uint64_t off = place(r), len = (take(r, 1) & 127) * 512 + 512;

    disk_allow(&r->w.disk, len);
    if (kind == 7 && op % 4 == 0)
        return reopen(r);
    if (kind >= 6)
        manage(r, op, off);
    else if (r->info.virtual_size - off >= len)
        io(r, op, off, len);
    return true;
}

static void check_end(struct run *r)
{
    if (r->w.img)
        (void)world_close(&r->w);
    if (world_check(&r->w, 0) == 0 && r->sound && (r->w.res.corruptions + r->w.res.leaked_clusters))
        fuzz_fail("a sound image is none after operations: %s", r->w.found);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct run *r = calloc(1, sizeof(*r));
    struct input in;

    if (!r)
        fuzz_fail("no memory");
    input_parse(&in, data, size);
    world_begin(&r->w, &in);
    r->p = in.tail;
    r->end = in.tail + in.tail_len;
    if (in.nr == 0) {
        if (world_check(&r->w, 0) != 0 || r->w.res.corruptions)
            fuzz_fail("seed \"%s\": %s%s", seed_of(in.seed)->name, r->w.err.text, r->w.found);
        /* Leaks, or a feature that keeps it from being written, are the image's own. */
        r->sound = !r->w.res.leaked_clusters && !r->w.res.warnings &&
                   world_open(&r->w, ZQCOW2_OPEN_RDWR) == 0;
    }
    if (reopen(r)) {
        for (int i = 0; r->p < r->end && i < 128 && step(r); i++)
            ;
    }
    if (r->w.img)
        world_read(&r->w, 256);
    check_end(r);
    world_end(&r->w);
    free(r);
    return 0;
}
