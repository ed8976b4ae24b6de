/* SPDX-License-Identifier: MIT */
#include "crash/cuts.h"

#include <stdlib.h>

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
    int rc = zqcow2_simdisk_cut_seek(cut, at);
    uint64_t n = rc < 0 ? 0 : zqcow2_simdisk_cut_states(cut);

    for (uint64_t i = 0; rc == 0 && i < (n < c->states ? n : c->states); i++)
        rc = judge_one(c, cut, at, n <= c->states ? i : i == 0 ? 0 : cuts_draw(c->rng, n), before);
    return rc;
}

int cuts_judge_all(const struct cuts *c, struct zqcow2_simdisk *disk)
{
    uint64_t end = zqcow2_simdisk_position(disk), before = 0;
    const char *only = getenv("ZQ_CUT");
    struct zqcow2_simdisk_cut *cut;
    int rc = zqcow2_simdisk_cut_new(disk, &cut);

    if (rc < 0)
        return rc;
    for (uint64_t at = zqcow2_simdisk_cut_position(cut); rc == 0 && at <= end; at++) {
        if (!only || at == strtoull(only, NULL, 10))
            rc = judge_position(c, cut, at, &before);
    }
    zqcow2_simdisk_cut_free(cut);
    return rc;
}
