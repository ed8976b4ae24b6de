/* SPDX-License-Identifier: MIT */
#include "crash/cuts.h"

#include <stdlib.h>
#include <string.h>

uint64_t cuts_draw(uint64_t *rng, uint64_t n)
{
    *rng = *rng * 6364136223846793005u + 1442695040888963407u;
    return (*rng >> 33) % n;
}

static int judge_one(const struct cuts *c, struct zqcow2_simdisk_cut *cut, uint64_t at, uint64_t k,
                     uint64_t *before)
{
    struct zqcow2_simdisk *image;
    uint64_t hash;
    int rc = zqcow2_simdisk_cut_image(cut, k, &image);

    if (rc < 0)
        return rc;
    hash = zqcow2_simdisk_hash(image) ^ (c->once ? 0 : at);
    if (hash != *before)
        c->judge(c->arg, at, k, image);
    *before = hash;
    zqcow2_simdisk_free(image);
    return 0;
}

static int judge_position(const struct cuts *c, struct zqcow2_simdisk_cut *cut, uint64_t at,
                          uint64_t *before)
{
    const char *only = getenv("ZQ_STATE");
    int rc = zqcow2_simdisk_cut_seek(cut, at);
    uint64_t n = rc < 0 ? 0 : zqcow2_simdisk_cut_states(cut);

    if (rc == 0 && only)
        return judge_one(c, cut, at, strtoull(only, NULL, 10), before);
    for (uint64_t i = 0; rc == 0 && i < (n < c->states ? n : c->states); i++)
        rc = judge_one(c, cut, at, n <= c->states ? i : i == 0 ? 0 : cuts_draw(c->rng, n), before);
    return rc;
}

/* ZQ_CUT: one position. ZQ_STEP: every so many, where each takes long (sanitizers). */
static bool is_wanted(uint64_t at)
{
    const char *only = getenv("ZQ_CUT"), *step = getenv("ZQ_STEP");

    if (only)
        return at == strtoull(only, NULL, 10);
    return !step || at % strtoull(step, NULL, 10) == 0;
}

int cuts_judge_all(const struct cuts *c, struct zqcow2_simdisk *disk)
{
    uint64_t end = zqcow2_simdisk_position(disk), before = 0;
    struct zqcow2_simdisk_cut *cut;
    int rc = zqcow2_simdisk_cut_new(disk, &cut);

    if (rc < 0)
        return rc;
    for (uint64_t at = zqcow2_simdisk_cut_position(cut); rc == 0 && at <= end; at++) {
        if (is_wanted(at))
            rc = judge_position(c, cut, at, &before);
    }
    zqcow2_simdisk_cut_free(cut);
    return rc;
}

/* The mark is the first extension, and has 16 bytes with its head; a name ends the list. */
int cuts_unmark(struct zqcow2_backend *be)
{
    uint8_t raw[4096] = {0}, *list, *end;
    uint64_t name = 0, n;
    int rc = zqcow2_backend_read(be, raw, 512, 0);

    n = rc == 0 && raw[23] > 9 ? 1u << (raw[23] < 12 ? raw[23] : 12) : 512;
    if (rc == 0)
        rc = zqcow2_backend_read(be, raw, (size_t)n, 0);
    for (unsigned i = 8; i < 16; i++)
        name = name << 8 | raw[i];
    list = raw + raw[103];
    end = raw + (name ? name : n);
    if (rc < 0 || name > n || memcmp(list, "zq2m\0\0\0\10", 8) != 0)
        return rc < 0 ? rc : -1;
    memmove(list, list + 16, (size_t)(end - list) - 16);
    return zqcow2_backend_write(be, raw, (size_t)n, 0);
}

int cuts_make_v2(struct zqcow2_backend *be)
{
    uint8_t raw[512];
    int rc = zqcow2_backend_read(be, raw, sizeof(raw), 0);

    raw[7] = 2;
    memset(raw + 72, 0, sizeof(raw) - 72);
    return rc < 0 ? rc : zqcow2_backend_write(be, raw, sizeof(raw), 0);
}

/* SPEC.md: where v7 has the length of the table v3 has its place, and the reverse. */
int cuts_make_v3(struct zqcow2_backend *be, uint32_t zones, bool stated)
{
    uint8_t raw[512], table[512], *at = raw, swap[8];
    uint64_t offset = 0;
    int rc = zqcow2_backend_read(be, raw, sizeof(raw), 0);

    for (at += raw[103]; rc == 0 && memcmp(at, "\0zbd", 4) != 0;)
        at += 8 + (at[7] + 7) / 8 * 8;
    at += 8;
    memcpy(swap, at + 32, 8);
    memcpy(at + 32, at + 40, 8);
    memcpy(at + 40, swap, 8);
    memset(at + 28, 0, 4); /* the largest append: no limit of its own */
    for (unsigned i = 32; i < 40; i++)
        offset = offset << 8 | at[i];
    if (rc == 0)
        rc = zqcow2_backend_read(be, table, sizeof(table), offset);
    for (uint32_t i = 1; stated && i < zones; i++)
        table[i * 8 + 7] |= 0x10;
    if (rc == 0)
        rc = zqcow2_backend_write(be, table, sizeof(table), offset);
    return rc < 0 ? rc : zqcow2_backend_write(be, raw, sizeof(raw), 0);
}
