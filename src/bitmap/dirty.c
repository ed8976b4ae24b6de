/* SPDX-License-Identifier: MIT */
/*
 * Sets bits, and answers whether they are set. Nothing is ever cleared: a set grows until the
 * bitmap is cleared as a whole, or the image is closed.
 */
#include "bitmap/dirty.h"

#include <errno.h>

#include "base/bytes.h"
#include "base/report.h"

#define PAGE_BITS 12u /* log2 of the bits of a page */
#define PAGE      (1u << (PAGE_BITS - 3))
#define ALL       ((void *)(uintptr_t)1) /* in place of a page or a node: every bit is set */

static uint64_t in_node(const struct zq_dirty *d)
{
    return (uint64_t)1 << d->node_bits;
}

static uint64_t pages(const struct zq_dirty *d)
{
    return in_node(d) >> PAGE_BITS;
}

/* Bits of a node that the device has: the last node may be short. */
static uint64_t room(const struct zq_dirty *d, uint64_t node)
{
    return zq_min(in_node(d), d->bits - (node << d->node_bits));
}

int zq_dirty_open(struct zq_dirty *d, const struct zqcow2_hooks *hooks, uint64_t bits,
                  uint32_t cluster_bits)
{
    d->hooks = hooks;
    d->bits = bits;
    d->node_bits = cluster_bits + 3;
    d->nodes = zq_div_up(bits, in_node(d));
    d->v = zq_zalloc_array(hooks, zq_max(d->nodes, 1), sizeof(*d->v));
    return d->v ? 0 : -ENOMEM;
}

static void free_node(const struct zq_dirty *d, void **node)
{
    for (uint64_t i = 0; i < pages(d); i++) {
        if (node[i] != ALL)
            zq_free(d->hooks, node[i], PAGE);
    }
    zq_free(d->hooks, node, pages(d) * sizeof(*node));
}

void zq_dirty_close(struct zq_dirty *d)
{
    if (!d->v)
        return;
    for (uint64_t i = 0; i < d->nodes; i++) {
        if (d->v[i] && d->v[i] != ALL)
            free_node(d, d->v[i]);
    }
    zq_free(d->hooks, d->v, zq_max(d->nodes, 1) * sizeof(*d->v));
    d->v = NULL;
}

/* A node that is set as a whole stays so, and bits behind the end of the device count for nothing.
 */
void zq_dirty_take(struct zq_dirty *d, struct zq_dirty *from)
{
    zq_assert(d->v && from->v && d->node_bits == from->node_bits);
    for (uint64_t i = 0; i < zq_min(d->nodes, from->nodes); i++) {
        d->v[i] = from->v[i];
        from->v[i] = NULL;
    }
    zq_dirty_close(from);
}

/* ---- bits of a byte string, as the file has them: the lowest bit of a byte comes first ---- */

void zq_bits_set(uint8_t *p, uint64_t from, uint64_t to)
{
    while (from < to) {
        if (from % 8 == 0 && to - from >= 8) {
            uint64_t n = (to - from) / 8;

            memset(p + from / 8, 0xff, (size_t)n);
            from += n * 8;
        } else {
            p[from / 8] |= (uint8_t)(1u << from % 8);
            from++;
        }
    }
}

void zq_bits_clear(uint8_t *p, uint64_t from, uint64_t to)
{
    for (; from < to && from % 8; from++)
        p[from / 8] &= (uint8_t) ~(1u << from % 8);
    if (from < to)
        memset(p + from / 8, 0, (size_t)zq_div_up(to - from, 8));
}

static bool has_bits(const uint8_t *p, uint64_t from, uint64_t to)
{
    for (; from < to; from++) {
        if (!(p[from / 8] >> from % 8 & 1))
            return false;
    }
    return true;
}

/* ---- setting ---- */

/*
 * A lack of memory may leave some of the bits set, and others not. That is as good as none: the
 * caller refuses the request, and a mark too many costs a backup of what has not changed.
 */

static int set_in_page(struct zq_dirty *d, void **page, uint64_t from, uint64_t to)
{
    if (*page == ALL)
        return 0;
    if (to - from == 1u << PAGE_BITS) {
        zq_free(d->hooks, *page, PAGE);
        *page = ALL;
        return 0;
    }
    if (!*page)
        *page = zq_zalloc(d->hooks, PAGE);
    if (!*page)
        return -ENOMEM;
    zq_bits_set(*page, from, to);
    return 0;
}

/* from, to: in the node. */
static int set_in_node(struct zq_dirty *d, uint64_t node, uint64_t from, uint64_t to)
{
    const uint64_t page = 1u << PAGE_BITS;
    void **at = d->v[node];

    if (at == ALL)
        return 0;
    if (to - from == room(d, node)) {
        if (at)
            free_node(d, at);
        d->v[node] = ALL;
        return 0;
    }
    if (!at)
        at = d->v[node] = zq_zalloc_array(d->hooks, pages(d), sizeof(*at));
    if (!at)
        return -ENOMEM;
    for (uint64_t end; from < to; from = end) {
        uint64_t first = zq_align_down(from, page);
        int rc;

        end = zq_min(to, first + page);
        rc = set_in_page(d, &at[from >> PAGE_BITS], from - first, end - first);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int zq_dirty_set(struct zq_dirty *d, uint64_t from, uint64_t to)
{
    int rc = 0;

    zq_assert(d->v && from <= to);
    to = zq_min(to, d->bits);
    for (uint64_t end; rc == 0 && from < to; from = end) {
        uint64_t node = from >> d->node_bits, first = node << d->node_bits;

        end = zq_min(to, first + in_node(d));
        rc = set_in_node(d, node, from - first, end - first);
    }
    return rc;
}

/* ---- asking ---- */

static bool page_has(const void *page, uint64_t from, uint64_t to)
{
    return page == ALL || (page && has_bits(page, from, to));
}

/* By pages, since almost every question is about one bit. */
bool zq_dirty_has(const struct zq_dirty *d, uint64_t from, uint64_t to)
{
    const uint64_t page = 1u << PAGE_BITS;

    to = zq_min(to, d->bits);
    for (uint64_t end; from < to; from = end) {
        uint64_t node = from >> d->node_bits, base = node << d->node_bits;
        void *const *at = d->v[node];
        uint64_t first = zq_align_down(from, page);

        end = zq_min(to, at == ALL ? base + in_node(d) : first + page);
        if (at == ALL)
            continue;
        if (!at || !page_has(at[(from - base) >> PAGE_BITS], from - first, end - first))
            return false;
    }
    return true;
}

bool zq_dirty_any(const struct zq_dirty *d, uint64_t node, bool *all)
{
    *all = d->v[node] == ALL;
    return d->v[node];
}

/*
 * Bits behind the end are cleared: other programs count them, and a device that has been larger may
 * have left some.
 */
void zq_dirty_join(const struct zq_dirty *d, uint64_t node, uint8_t *buf)
{
    void *const *at = d->v ? d->v[node] : NULL;

    if (at == ALL)
        zq_bits_set(buf, 0, room(d, node));
    for (uint64_t i = 0; at && at != ALL && i < pages(d); i++) {
        const uint8_t *page = at[i];

        if (page == ALL)
            memset(buf + i * PAGE, 0xff, PAGE);
        for (uint64_t k = 0; page && page != ALL && k < PAGE; k++)
            buf[i * PAGE + k] |= page[k];
    }
    zq_bits_clear(buf, room(d, node), in_node(d));
}
