/* SPDX-License-Identifier: MIT */
/* Marked bytes: the rig's blocking calls with data that encodes its place and its writer. */
#include <stdlib.h>
#include <string.h>
#include "rig/rig.h"

/* Each sector: its tag, its address, then words mixed from both. */
void rig_pattern(void *buf, uint64_t len, uint64_t off, uint64_t tag)
{
    uint64_t *w = buf;

    for (uint64_t s = 0; s < len; s += 512, w += 64) {
        uint64_t x = rng_mix(tag * 0x9e3779b97f4a7c15ull + off + s);

        w[0] = tag;
        w[1] = off + s;
        for (unsigned i = 2; i < 64; i++)
            w[i] = x += 0x9e3779b97f4a7c15ull;
    }
}

/* Whole sectors, so that a length that is none is a mistake of the call only. */
static uint8_t *room(uint64_t len)
{
    uint8_t *p = calloc(1, (size_t)len + 512);

    if (!p)
        abort();
    return p;
}

int rig_write(struct rig *r, uint64_t off, uint64_t len, uint64_t tag)
{
    uint8_t *p = room(len);
    int rc;

    rig_pattern(p, len, off, tag);
    rc = zqcow2_write(r->img, p, (size_t)len, off, 0);
    free(p);
    return rc;
}

/* Where the bytes will lie is not known yet: the pattern starts at the zone's start. */
int rig_append(struct rig *r, uint32_t zone, uint64_t len, uint64_t tag, uint64_t *at)
{
    uint64_t off = rig_start(r, zone);
    uint8_t *p = room(len);
    int rc;

    rig_pattern(p, len, off, tag);
    rc = zqcow2_append(r->img, p, (size_t)len, &off, 0);
    free(p);
    if (!rc && at)
        *at = off;
    return rc;
}

bool rig_holds(struct rig *r, uint64_t off, uint64_t len, uint64_t from, uint64_t tag)
{
    uint8_t *is = room(len), *want = room(len);
    int rc = zqcow2_read(r->img, is, (size_t)len, off);
    bool same;

    rig_pattern(want, len, from, tag);
    same = !rc && !memcmp(is, want, len);
    free(is);
    free(want);
    return same;
}

bool rig_zeros(struct rig *r, uint64_t off, uint64_t len)
{
    uint8_t *is = room(len);
    bool same = true;

    memset(is, 0xee, len);
    if (zqcow2_read(r->img, is, (size_t)len, off))
        same = false;
    for (uint64_t i = 0; same && i < len; i++)
        same = !is[i];
    free(is);
    return same;
}

int rig_manage(struct rig *r, int op, uint64_t off, uint64_t len, uint64_t *failed)
{
    struct zqcow2_request req = {
        .size = sizeof(req), .op = (uint16_t)op, .offset = off, .length = len};
    struct zqcow2_result res = {0};
    int rc = zqcow2_run(r->img, &req, &res);

    if (failed)
        *failed = res.offset;
    return rc;
}
