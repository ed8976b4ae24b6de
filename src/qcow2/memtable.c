/* SPDX-License-Identifier: MIT */
/* Tables that are kept in memory: entries, sectors, rounds. */
#include "qcow2/memtable.h"

#include <errno.h>
#include "base/report.h"

int zq_memtable_open(struct zq_memtable *t, const struct zqcow2_hooks *hooks, uint64_t entries,
                     uint64_t offset)
{
    *t = (struct zq_memtable){.hooks = hooks, .entries = entries, .offset = offset};
    if (!entries)
        return 0;
    t->v = zq_zalloc_array(hooks, entries, sizeof(*t->v));
    t->dirty = zq_zalloc(hooks, zq_table_sectors(entries));
    return t->v && t->dirty ? 0 : -ENOMEM;
}

void zq_memtable_close(struct zq_memtable *t)
{
    if (!t->hooks)
        return;
    zq_index_free(&t->index, t->hooks);
    zq_free(t->hooks, t->v, t->entries * sizeof(*t->v));
    zq_free(t->hooks, t->dirty, zq_table_sectors(t->entries));
    *t = (struct zq_memtable){0};
}

void zq_memtable_move(struct zq_memtable *to, struct zq_memtable *from)
{
    zq_memtable_close(to);
    *to = *from;
    *from = (struct zq_memtable){0};
}

int zq_memtable_index(struct zq_memtable *t)
{
    return zq_index_build(&t->index, t->hooks, t->v, t->entries);
}

void zq_memtable_set(struct zq_memtable *t, uint64_t i, uint64_t entry)
{
    zq_assert_k(K2, i < t->entries && !t->frozen); /* the round writes it as it was */
    zq_index_set(&t->index, t->v, (uint32_t)i, entry);
    t->dirty[zq_table_sector(i)] = ZQ_SECTOR_DIRTY;
    t->is_dirty = true;
}

/* ---- in a round ---- */

void zq_memtable_freeze(struct zq_memtable *t)
{
    zq_assert_k(K2, !t->frozen);
    t->frozen = t->is_dirty;
    t->is_dirty = false;
}

uint32_t zq_memtable_compose(struct zq_memtable *t, uint64_t *cursor, uint8_t *buf, uint32_t max,
                             uint64_t *at)
{
    uint64_t per = zq_table_count(ZQ_SECTOR), nr = zq_table_sectors(t->entries), s = *cursor;
    uint32_t bytes = 0;

    while (s < nr && t->dirty[s] != ZQ_SECTOR_DIRTY)
        s++;
    *at = t->offset + s * ZQ_SECTOR;
    for (; s < nr && t->dirty[s] == ZQ_SECTOR_DIRTY && bytes < max; s++, bytes += ZQ_SECTOR) {
        for (uint64_t i = 0; i < per; i++) {
            uint64_t k = s * per + i;
            zq_table_put(buf + bytes, i, k < t->entries ? t->v[k] : 0);
        }
        t->dirty[s] = ZQ_SECTOR_WRITTEN;
    }
    *cursor = s;
    zq_assert(bytes <= max && s <= nr);
    return bytes;
}

/* What becomes of the sectors that the round has composed. */
static void settle(struct zq_memtable *t, enum zq_sector to)
{
    for (uint64_t s = 0; s < zq_table_sectors(t->entries); s++) {
        if (t->dirty[s] == ZQ_SECTOR_WRITTEN)
            t->dirty[s] = (uint8_t)to;
    }
    t->frozen = false;
}

void zq_memtable_thaw(struct zq_memtable *t)
{
    zq_assert_k(K2, t->frozen);
    settle(t, ZQ_SECTOR_CLEAN);
}

void zq_memtable_stop(struct zq_memtable *t)
{
    if (!t->frozen)
        return;
    settle(t, ZQ_SECTOR_DIRTY);
    t->is_dirty = true;
}
