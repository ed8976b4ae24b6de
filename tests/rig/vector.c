/* SPDX-License-Identifier: MIT */
/* Cuts a buffer at places that nobody favours. */
#include <stddef.h>
#include "rig/rng.h"
#include "rig/vector.h"

struct cut {
    struct iovec *iov;
    uint32_t n;
    uint8_t *buf;
    size_t len, at;
};

static void add(struct cut *c, size_t len)
{
    len = len < c->len - c->at ? len : c->len - c->at;
    c->iov[c->n++] = (struct iovec){len ? c->buf + c->at : NULL, len};
    c->at += len;
}

/* Elements of some bytes, of none, of more than a sector. */
static void crumbs(struct cut *c, uint64_t tag)
{
    static const uint64_t most[] = {1, 20, 300, 700, 5000};
    uint64_t rng = tag * 0x9e3779b97f4a7c15ull;

    while (c->n < 40)
        add(c, (size_t)rng_below(&rng, most[rng_below(&rng, 5)]));
}

/* As a controller has it whose first page begins anywhere. */
static void pages(struct cut *c, uint64_t tag)
{
    add(c, 1 + (size_t)(tag * 211 % 4096));
    while (c->n < VECTOR_MAX - 1)
        add(c, 4096);
}

uint32_t vector_cut(struct iovec iov[VECTOR_MAX], uint8_t *buf, size_t len, uint64_t tag)
{
    struct cut c = {iov, 0, buf, len, 0};

    switch (tag % 8) {
    case 0: crumbs(&c, tag); break;
    case 1: pages(&c, tag); break;
    case 2:
        add(&c, len / 512 / 3 * 512);
        add(&c, len / 512 / 2 * 512);
        break;
    default: break;
    }
    add(&c, len);
    return c.n;
}
