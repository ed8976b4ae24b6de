/* SPDX-License-Identifier: MIT */
/* Block status beside the model: what it calls zeros is, and what it calls data lies where it says.
 */
#include <string.h>

#include "rig/rig.h"

#define CHUNK 4096u

/* [off, off + len) of the model against the file from `host` on, or against zeros. */
static bool same_run(struct rig *r, const struct model *m, uint64_t off, uint64_t len,
                     struct store *file, uint64_t host)
{
    uint8_t want[CHUNK], got[CHUNK] = {0};

    for (uint64_t done = 0, n; done < len; done += n) {
        n = len - done < CHUNK ? len - done : CHUNK;
        store_get(m->data, want, n, off + done);
        if (host != UINT64_MAX)
            store_get(file, got, n, host + done);
        if (memcmp(want, got, n))
            return rig_say(r,
                           "block status at %#llx: the bytes of %#llx are not at %#llx in the file",
                           (unsigned long long)off, (unsigned long long)(off + done),
                           (unsigned long long)host);
    }
    return true;
}

/* The file that has the data of the image so many levels below. */
static struct store *file_of(struct rig *r, uint32_t depth)
{
    if (r->g->data_file)
        return depth ? &r->data.below[r->nr_below - depth] : &r->data.store;
    return depth ? &r->below[r->nr_below - depth] : &r->store;
}

static bool same_answer(struct rig *r, const struct model *m, uint64_t off, uint64_t len,
                        const struct zqcow2_extent *s)
{
    bool zero = s->kind == ZQCOW2_BLOCK_UNALLOCATED || s->kind == ZQCOW2_BLOCK_ZERO;

    if (!s->length || s->length > len || s->length % 512 || s->depth > r->nr_below)
        return rig_say(r, "block status at %#llx: %#llx bytes at depth %u", (unsigned long long)off,
                       (unsigned long long)s->length, s->depth);
    if (s->kind == ZQCOW2_BLOCK_COMPRESSED && s->host == UINT64_MAX)
        return true; /* what it unpacks to is a matter of reads */
    if (zero)
        return same_run(r, m, off, s->length, NULL, UINT64_MAX);
    if (s->kind != ZQCOW2_BLOCK_DATA || s->host == UINT64_MAX)
        return rig_say(r, "block status at %#llx: kind %u, in the file at %#llx",
                       (unsigned long long)off, s->kind, (unsigned long long)s->host);
    if (!s->depth && r->world == RIG_URING)
        return true;
    return same_run(r, m, off, s->length, file_of(r, s->depth), s->host);
}

bool rig_same_status(struct rig *r, const struct model *m, uint64_t off, uint64_t len)
{
    while (len) {
        struct zqcow2_extent s = ZQCOW2_EXTENT_INIT;
        int rc = zqcow2_block_status(r->img, off, len, &s);

        if (rc)
            return rig_say(r, "block status at %#llx: %d", (unsigned long long)off, rc);
        if (!same_answer(r, m, off, len, &s))
            return false;
        off += s.length;
        len -= s.length;
    }
    return true;
}
