/* SPDX-License-Identifier: MIT */
#include "nbd/unflushed.h"

#include <stdlib.h>
#include <string.h>

static struct nbd_write *copy(uint64_t length, const struct iovec *iov)
{
    struct nbd_write *w = malloc(sizeof(*w) + (iov ? (size_t)length : 0));

    if (!w)
        return NULL;
    w->data = iov ? (uint8_t *)(w + 1) : NULL;
    if (iov)
        memcpy(w->data, iov->iov_base, (size_t)length);
    return w;
}

static uint64_t cost(const struct nbd_write *w)
{
    return sizeof(*w) + (w->data ? w->length : 0);
}

void nbd_unflushed_add(struct nbd_unflushed *u, uint64_t offset, uint64_t length,
                       const struct iovec *iov)
{
    struct nbd_write *w = copy(length, iov);

    u->nr++;
    if (!w) {
        u->gap = true;
        u->gap_nr = u->nr;
        return;
    }
    w->next = NULL;
    w->offset = offset;
    w->length = length;
    w->nr = u->nr;
    if (u->first)
        u->last->next = w;
    else
        u->first = w;
    u->last = w;
    u->bytes += cost(w);
}

static bool is_later(uintptr_t a, uintptr_t b)
{
    return (intptr_t)(a - b) > 0;
}

void nbd_unflushed_drop(struct nbd_unflushed *u, uintptr_t nr)
{
    while (u->first && !is_later(u->first->nr, nr)) {
        struct nbd_write *w = u->first;

        u->first = w->next;
        u->bytes -= cost(w);
        free(w);
    }
    if (u->gap && !is_later(u->gap_nr, nr))
        u->gap = false;
}

void nbd_unflushed_free(struct nbd_unflushed *u)
{
    nbd_unflushed_drop(u, u->nr);
}

void nbd_write_overlay(const struct nbd_write *w, uint8_t *buf, size_t size)
{
    size_t len;

    if (w->offset >= size)
        return;
    len = size - (size_t)w->offset;
    len = w->length < len ? (size_t)w->length : len;
    if (w->data)
        memcpy(buf + w->offset, w->data, len);
    else
        memset(buf + w->offset, 0, len);
}
