/* SPDX-License-Identifier: MIT */
/*
 * Check, repair, check. Whatever was damaged: check writes nothing; a repair leaves no more
 * corruptions than it found, and what it says is left is what the next check finds; the same repair
 * once more changes nothing. The greatest repair leaves none, or an image that is not opened for
 * writing. An image that check calls clean reads the same after any repair.
 */
#include "fuzz/target.h"

#include <string.h>

const struct fuzz_target fuzz_target = {(1u << F_GROUPS) - 1, false};

static uint64_t findings(const struct world *w)
{
    return w->res.corruptions + w->res.leaked_clusters + w->res.warnings;
}

static void expect_sound(struct world *w)
{
    /* A broken table of snapshots keeps everything from being freed, and nothing from being used.
     */
    if (!w->res.corruptions || strstr(w->found, "snapshot") || strstr(w->found, "bitmap"))
        return;
    if (world_open(w, ZQCOW2_OPEN_RDWR) != 0)
        return;
    (void)world_close(w);
    if (world_check(w, 0) == 0 && w->res.corruptions)
        fuzz_fail("opens for writing after the greatest repair, and still: %s", w->found);
}

/* The first 4 MiB of the device, each piece with its result. */
static uint64_t content(struct world *w)
{
    static uint8_t buf[65536];
    uint64_t hash = 14695981039346656037u, size, n;

    if (world_open(w, 0) != 0)
        return 0;
    size = world_info(w).virtual_size;
    for (uint64_t at = 0; at < size && at < 4u << 20; at += n) {
        int rc;

        n = size - at < sizeof(buf) ? size - at : sizeof(buf);
        disk_allow(&w->disk, n);
        rc = zqcow2_read(w->img, buf, n, at);
        hash = (hash ^ (unsigned)rc) * 1099511628211u;
        for (uint64_t i = 0; !rc && i < n; i++)
            hash = (hash ^ buf[i]) * 1099511628211u;
    }
    (void)world_close(w);
    return hash;
}

static void repair(struct world *w, uint32_t flags, uint64_t corruptions, bool clean)
{
    struct zqcow2_check_result said;
    struct world before;
    int rc;

    world_copy(&before, w);
    rc = world_check(w, flags);
    said = w->res;
    if (clean && (rc || content(&before) != content(w)))
        fuzz_fail("after repair %u a clean image reads otherwise: %d: %s%s", flags, rc, w->err.text,
                  w->found);
    world_end(&before);
    if (rc) /* the host is full, at most */
        return;
    world_copy(&before, w);
    rc = world_check(w, 0);
    if (rc || w->res.corruptions > corruptions ||
        w->res.corruptions != said.corruptions - said.corruptions_fixed ||
        w->res.leaked_clusters != said.leaked_clusters - said.leaks_fixed)
        fuzz_fail(
            "repair %u leaves %llu corruptions, %llu leaks; check: %d, %llu of %llu, %llu: %s",
            flags, (unsigned long long)(said.corruptions - said.corruptions_fixed),
            (unsigned long long)(said.leaked_clusters - said.leaks_fixed), rc,
            (unsigned long long)w->res.corruptions, (unsigned long long)corruptions,
            (unsigned long long)w->res.leaked_clusters, w->found);
    if (flags == ZQCOW2_CHECK_REPAIR_ALL)
        expect_sound(w);
    else if (world_check(w, flags) != 0 || !disk_equal(&before.disk, &w->disk))
        fuzz_fail("repair %u once more has something to do: %s", flags, w->found);
    world_end(&before);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint32_t degrees[] = {ZQCOW2_CHECK_REPAIR_LEAKS, ZQCOW2_CHECK_REPAIR,
                                       ZQCOW2_CHECK_REPAIR_ALL};
    struct world w, one;
    uint64_t corruptions;
    struct input in;
    bool clean;

    input_parse(&in, data, size);
    world_begin(&w, &in);
    if (world_check(&w, 0) == 0) {
        corruptions = w.res.corruptions;
        clean = !findings(&w);
        for (int i = 0; i < 3; i++) {
            world_copy(&one, &w);
            repair(&one, degrees[i], corruptions, clean);
            world_end(&one);
        }
    }
    world_end(&w);
    return 0;
}
