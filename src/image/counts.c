/* SPDX-License-Identifier: MIT */
/* Keeps reference counts in chunks of clusters, sorted by number. */
#include "image/counts.h"

#include <errno.h>
#include <string.h>

#define FIRST_ROOM 64

size_t zq_counts_from(const struct zq_counts *c, uint64_t cluster)
{
    uint64_t number = cluster >> ZQ_CHUNK_BITS;
    size_t low = 0, high = c->nr;

    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (c->chunks[mid]->number < number)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static struct zq_chunk *find(struct zq_counts *c, uint64_t cluster)
{
    uint64_t number = cluster >> ZQ_CHUNK_BITS;

    if (c->last >= c->nr || c->chunks[c->last]->number != number)
        c->last = zq_counts_from(c, cluster);
    if (c->last >= c->nr || c->chunks[c->last]->number != number)
        return NULL;
    return c->chunks[c->last];
}

static int grow(struct zq_counts *c)
{
    size_t room = c->room ? c->room * 2 : FIRST_ROOM;
    struct zq_chunk **chunks;

    if (c->nr < c->room)
        return 0;
    chunks = zq_zalloc_array(c->hooks, room, sizeof(*chunks));
    if (!chunks)
        return -ENOMEM;
    if (c->nr)
        memcpy(chunks, c->chunks, c->nr * sizeof(*chunks));
    zq_free(c->hooks, c->chunks, c->room * sizeof(*chunks));
    c->chunks = chunks;
    c->room = room;
    return 0;
}

static struct zq_chunk *insert(struct zq_counts *c, uint64_t cluster)
{
    struct zq_chunk *k = grow(c) < 0 ? NULL : zq_zalloc(c->hooks, sizeof(*k));
    size_t at = zq_counts_from(c, cluster);

    if (!k)
        return NULL;
    k->number = cluster >> ZQ_CHUNK_BITS;
    memmove(c->chunks + at + 1, c->chunks + at, (c->nr - at) * sizeof(*c->chunks));
    c->chunks[at] = k;
    c->nr++;
    c->last = at;
    return k;
}

int zq_counts_add(struct zq_counts *c, uint64_t cluster, uint32_t n, enum zq_kind kind,
                  unsigned *before)
{
    struct zq_chunk *k = find(c, cluster);
    unsigned i = cluster & (ZQ_CHUNK_CLUSTERS - 1);

    if (!k && !(k = insert(c, cluster)))
        return -ENOMEM;
    if (before)
        *before = k->kind[i];
    k->count[i] = n > UINT32_MAX - k->count[i] ? UINT32_MAX : k->count[i] + n;
    k->kind[i] |= (uint8_t)kind;
    return 0;
}

uint32_t zq_counts_get(struct zq_counts *c, uint64_t cluster)
{
    const struct zq_chunk *k = find(c, cluster);

    return k ? k->count[cluster & (ZQ_CHUNK_CLUSTERS - 1)] : 0;
}

unsigned zq_counts_kind(struct zq_counts *c, uint64_t cluster)
{
    const struct zq_chunk *k = find(c, cluster);

    return k ? k->kind[cluster & (ZQ_CHUNK_CLUSTERS - 1)] : 0;
}

unsigned zq_counts_once(struct zq_counts *c, uint64_t cluster)
{
    const struct zq_chunk *k = find(c, cluster);

    return k ? k->once[cluster & (ZQ_CHUNK_CLUSTERS - 1)] : 0;
}

void zq_counts_free(struct zq_counts *c)
{
    for (size_t i = 0; i < c->nr; i++)
        zq_free(c->hooks, c->chunks[i], sizeof(*c->chunks[i]));
    zq_free(c->hooks, c->chunks, c->room * sizeof(*c->chunks));
    *c = (struct zq_counts){.hooks = c->hooks};
}

const char *zq_kind_name(unsigned kinds)
{
    static const char *const names[] = {
        "header",         "refcount table or block",   "L1 table", "write-pointer table",
        "snapshot table", "bitmap directory or table", "L2 table", "data cluster"};
    for (unsigned i = 0; i < 8; i++) {
        if (kinds & 1u << i)
            return names[i];
    }
    return "nothing";
}
