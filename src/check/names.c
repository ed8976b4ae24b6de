/* SPDX-License-Identifier: MIT */
/*
 * Lists of names are compared by sorting them: images that were made to be slow may have 65,536
 * names that begin alike.
 */
#include "check/names.h"

#include <errno.h>
#include <string.h>

#include "base/bytes.h"
#include "base/sort.h"

/* Doubled: how many names there are, and how long, is known only at the end of their table. */
static int reserve(const struct zqcow2_hooks *hooks, void **p, size_t size, size_t used, size_t add,
                   size_t *room)
{
    size_t more = (size_t)zq_max(*room * 2, used + add);
    void *grown;

    if (used + add <= *room)
        return 0;
    grown = zq_zalloc_array(hooks, more, size);
    if (!grown)
        return -ENOMEM;
    if (used)
        memcpy(grown, *p, used * size);
    zq_free(hooks, *p, *room * size);
    *p = grown;
    *room = more;
    return 0;
}

int zq_names_add(struct zq_names *names, const struct zqcow2_hooks *hooks, struct zq_name *n,
                 const void *bytes)
{
    void *v = names->v, *all = names->bytes;
    int rc = reserve(hooks, &v, sizeof(*names->v), names->nr, 1, &names->v_room);

    names->v = v;
    if (rc == 0)
        rc = reserve(hooks, &all, 1, names->used, n->len, &names->bytes_room);
    names->bytes = all;
    if (rc < 0)
        return rc;
    n->pos = names->used;
    if (n->len)
        memcpy(names->bytes + n->pos, bytes, n->len);
    names->used += n->len;
    names->v[names->nr++] = *n;
    return 0;
}

/* As memcmp(); of two names that begin alike the shorter one is less. */
static int compare(const struct zq_names *names, const struct zq_name *a, const void *bytes,
                   size_t len)
{
    size_t both = (size_t)zq_min(a->len, len);
    int d = both ? memcmp(zq_names_bytes(names, a), bytes, both) : 0;

    return d ? d : (a->len > len) - (a->len < len);
}

static bool less(const void *pa, const void *pb, const void *arg)
{
    const struct zq_name *a = pa, *b = pb;
    int d = compare(arg, a, zq_names_bytes(arg, b), b->len);

    return d ? d < 0 : a->record < b->record;
}

void zq_names_sort(struct zq_names *names)
{
    if (names->nr)
        zq_sort(names->v, names->nr, sizeof(*names->v), less, names);
    for (size_t i = 1; i < names->nr; i++) {
        const struct zq_name *before = &names->v[i - 1];

        names->v[i].again =
            compare(names, &names->v[i], zq_names_bytes(names, before), before->len) == 0;
    }
}

bool zq_names_have(const struct zq_names *names, const void *bytes, size_t len)
{
    size_t low = 0, high = names->nr;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (compare(names, &names->v[mid], bytes, len) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low < names->nr && compare(names, &names->v[low], bytes, len) == 0;
}

void zq_names_free(struct zq_names *names, const struct zqcow2_hooks *hooks)
{
    zq_free(hooks, names->v, names->v_room * sizeof(*names->v));
    zq_free(hooks, names->bytes, names->bytes_room);
    *names = (struct zq_names){0};
}
