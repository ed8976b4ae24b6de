/* SPDX-License-Identifier: MIT */
/*
 * What a server has acknowledged and may still lose: copies of all writes since the last flush, in
 * the order in which they completed. Written again in that order, they give a server that has lost
 * any part of them what it had.
 */
#ifndef ZT_NBD_UNFLUSHED_H
#define ZT_NBD_UNFLUSHED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct nbd_write {
    struct nbd_write *next;
    uint64_t offset, length;
    uintptr_t nr;
    uint8_t *data; /* NULL: zeros */
};

struct nbd_unflushed {
    struct nbd_write *first, *last;
    uint64_t bytes;   /* of memory */
    uintptr_t nr;     /* of the latest write; it may wrap */
    bool gap;         /* a write is missing, for lack of memory: ... */
    uintptr_t gap_nr; /* ... the latest of them */
};

/* iov NULL: zeros. Never fails: what it cannot keep is a gap. */
void nbd_unflushed_add(struct nbd_unflushed *u, uint64_t offset, uint64_t length,
                       const struct iovec *iov);
/* Forgets writes up to number nr, which a flush has made durable. */
void nbd_unflushed_drop(struct nbd_unflushed *u, uintptr_t nr);
void nbd_unflushed_free(struct nbd_unflushed *u);
/* Puts onto buf, the first `size` bytes of the export, what `w` has there. */
void nbd_write_overlay(const struct nbd_write *w, uint8_t *buf, size_t size);

#endif
