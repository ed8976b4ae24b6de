/* SPDX-License-Identifier: MIT */
/* An index of table entries by what they name: sorted once, then kept in order. */
#include "qcow2/index.h"

#include <errno.h>
#include <string.h>
#include "base/report.h"
#include "base/sort.h"
#include "format/entry.h"

static uint64_t named(const uint64_t *table, uint32_t i)
{
    return zq_entry_host(table[i]); /* L1 keeps its COPIED flags in memory */
}

static bool less(const void *a, const void *b, const void *table)
{
    return named(table, *(const uint32_t *)a) < named(table, *(const uint32_t *)b);
}

int zq_index_build(struct zq_index *x, const struct zqcow2_hooks *h, const uint64_t *table,
                   uint64_t entries)
{
    bool sorted = true; /* the usual case: tables are made one behind the other */

    x->order = zq_alloc(h, _Alignof(uint32_t), entries * sizeof(*x->order));
    x->room = (uint32_t)entries;
    x->n = 0;
    if (entries && !x->order)
        return -ENOMEM;
    for (uint32_t i = 0; i < entries; i++) {
        if (!table[i])
            continue;
        sorted &= !x->n || named(table, x->order[x->n - 1]) <= named(table, i);
        x->order[x->n++] = i;
    }
    if (!sorted)
        zq_sort(x->order, x->n, sizeof(*x->order), less, table);
    return 0;
}

void zq_index_free(struct zq_index *x, const struct zqcow2_hooks *h)
{
    zq_free(h, x->order, x->room * sizeof(*x->order));
    *x = (struct zq_index){0};
}

bool zq_index_twice(const struct zq_index *x, const uint64_t *table, uint32_t *a, uint32_t *b)
{
    for (uint32_t k = 1; k < x->n; k++) {
        *a = x->order[k - 1];
        *b = x->order[k];
        if (named(table, *a) == named(table, *b))
            return true;
    }
    return false;
}

/* How many entries name something below host. */
static uint32_t below(const struct zq_index *x, const uint64_t *table, uint64_t host)
{
    uint32_t low = 0, high = x->n;

    if (high && named(table, x->order[high - 1]) < host) /* the usual case: host is new */
        return high;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;

        if (named(table, x->order[mid]) < host)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

bool zq_index_hit(const struct zq_index *x, const uint64_t *table, uint64_t host, uint64_t len,
                  uint32_t *i)
{
    uint32_t k = below(x, table, host);

    if (k == x->n || named(table, x->order[k]) >= host + len)
        return false;
    if (i)
        *i = x->order[k];
    return true;
}

/* Entries of a damaged table may name the same cluster; the place of one is behind the first. */
static void take_out(struct zq_index *x, const uint64_t *table, uint32_t i)
{
    uint32_t k = below(x, table, named(table, i));

    while (x->order[k] != i) {
        zq_assert(k + 1 < x->n);
        k++;
    }
    memmove(x->order + k, x->order + k + 1, (x->n - k - 1) * sizeof(*x->order));
    x->n--;
}

void zq_index_set(struct zq_index *x, uint64_t *table, uint32_t i, uint64_t entry)
{
    uint32_t k;

    zq_assert(i < x->room);
    if (table[i])
        take_out(x, table, i);
    table[i] = entry;
    if (!entry)
        return;
    k = below(x, table, named(table, i));
    memmove(x->order + k + 1, x->order + k, (x->n - k) * sizeof(*x->order));
    zq_assert(x->n < x->room);
    x->order[k] = i;
    x->n++;
}
