/* SPDX-License-Identifier: MIT */
/*
 * The bits of one bitmap that were set since the image was opened. What the file has is not in
 * here: it is joined when it is stored or read, so that opening an image reads no bits.
 *
 * Two levels: a *node* has the bits of one cluster of the file, and *pages* of 4096 bits each.
 * Memory is taken where bits are set; a page or a node that is set as a whole takes none. So a mark
 * costs two pages at most, whatever the size of the device, and marking all of it costs nothing.
 */
#ifndef ZQ_BITMAP_DIRTY_H
#define ZQ_BITMAP_DIRTY_H

#include <stdbool.h>

#include "base/mem.h"

struct zq_dirty {
    const struct zqcow2_hooks *hooks;
    uint64_t bits;      /* how many there are */
    uint32_t node_bits; /* log2 of the bits of a node: those of one cluster in the file */
    uint64_t nodes;
    void **v; /* owned; NULL: not open. Of a node: its pages, all of it, or NULL */
};

/* No bit set. -ENOMEM. */
int zq_dirty_open(struct zq_dirty *d, const struct zqcow2_hooks *hooks, uint64_t bits,
                  uint32_t cluster_bits);
void zq_dirty_close(struct zq_dirty *d);
/* d has no bit set, and may have another size: it gets those of `from`, which is closed. */
void zq_dirty_take(struct zq_dirty *d, struct zq_dirty *from);
/* Sets bits [from, to), as far as there are so many. -ENOMEM: some of them may be set. */
int zq_dirty_set(struct zq_dirty *d, uint64_t from, uint64_t to);
/* Are all of [from, to) set? */
bool zq_dirty_has(const struct zq_dirty *d, uint64_t from, uint64_t to);
/* Is any bit of the node set? *all: every one. */
bool zq_dirty_any(const struct zq_dirty *d, uint64_t node, bool *all);
/* Bits [from, to) of a byte string in the file's order; clear: of whole bytes at the end. */
void zq_bits_set(uint8_t *p, uint64_t from, uint64_t to);
void zq_bits_clear(uint8_t *p, uint64_t from, uint64_t to);
/* Sets in buf, the node's cluster, the bits that are set here, and clears those behind the end. */
void zq_dirty_join(const struct zq_dirty *d, uint64_t node, uint8_t *buf);

#endif
