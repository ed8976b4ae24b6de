/* SPDX-License-Identifier: MIT */
/*
 * Gives bitmaps that share a name names of their own, within the room that their records have. All
 * else stays: which of them was meant is unknown. The stored size never shrinks, so the directory
 * keeps its shape whatever a crash leaves of the two writes.
 */
#include "check/repair.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/bytes.h"

#define NAME_SIZE 18u /* in the record of a bitmap: 16 bits */
#define MAX_NAME  1023u

struct renamer {
    uint64_t next; /* no number is tried twice, so all bitmaps together try few */
    uint64_t renamed;
    uint8_t name[MAX_NAME];
    size_t len;
};

/* How much of a name of UTF-8 fits into `room` bytes. */
static size_t whole_characters(const uint8_t *name, size_t len, size_t room)
{
    size_t keep = (size_t)zq_min(len, room);

    while (keep && keep < len && (name[keep] & 0xc0) == 0x80)
        keep--;
    return keep;
}

/* False: the record has no room for a name that is free. */
static bool find_name(struct zq_scan *s, const struct zq_name *n, struct renamer *r)
{
    const uint8_t *old = zq_names_bytes(&s->names, n);
    size_t room = (size_t)zq_min(n->room, MAX_NAME);

    for (; n->size <= MAX_NAME; r->next++) {
        char suffix[24];
        size_t bytes = (size_t)snprintf(suffix, sizeof(suffix), "-%" PRIu64, r->next);

        if (bytes > room)
            break;
        r->len = whole_characters(old, n->len, room - bytes);
        memset(r->name, 0, sizeof(r->name));
        memcpy(r->name, old, r->len);
        memcpy(r->name + r->len, suffix, bytes);
        r->len += bytes;
        if (!zq_names_have(&s->names, r->name, r->len))
            return true;
    }
    return false;
}

static int rename_one(struct zq_scan *s, const struct zq_name *n, struct renamer *r)
{
    size_t size = (size_t)zq_max(r->len, n->size);
    uint8_t raw[2];
    int rc = zq_scan_write(s, r->name, size, n->text);

    zq_put_be16(raw, (uint16_t)size);
    if (rc == 0 && size != n->size)
        rc = zq_scan_write(s, raw, sizeof(raw), n->record + NAME_SIZE);
    r->renamed++;
    r->next++;
    return rc;
}

/*
 * Where a directory lies on refcounts that could not be moved away, or a snapshot may have what
 * could not be followed, nothing is written to it.
 */
int zq_rename_bitmaps(struct zq_scan *s, bool *changed)
{
    struct renamer r = {.next = 2};
    int rc = 0;

    if (s->rebuild || s->tangled || s->unfollowed)
        return 0;
    for (size_t i = 0; i < s->names.nr && rc == 0; i++) {
        if (s->names.v[i].again && find_name(s, &s->names.v[i], &r))
            rc = rename_one(s, &s->names.v[i], &r);
    }
    zq_repaired(s, r.renamed, "bitmaps renamed");
    *changed |= r.renamed > 0;
    return rc < 0 || !r.renamed ? rc : zq_be_flush(s->be);
}
