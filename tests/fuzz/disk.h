/* SPDX-License-Identifier: MIT */
/*
 * A sparse file in memory and a heap, both of which count: what one call of the library may cost is
 * bounded by what the file holds, and not by what it claims. A call that goes beyond is stopped
 * there, so that the stack shows where.
 */
#ifndef FUZZ_DISK_H
#define FUZZ_DISK_H

#include <stdbool.h>
#include <zqcow2/backend.h>

#define DISK_PAGE 4096u

struct disk_page {
    uint64_t number;
    uint8_t *data;
};

struct disk {
    struct disk_page *page; /* ascending; what is not here reads as zeros */
    size_t n, room;
    uint64_t length;
    uint64_t calls, bytes; /* since the last disk_allow() */
    uint64_t max_calls, max_bytes;
    uint64_t live, max_live; /* of the heap */
    uint64_t written;        /* calls that change the file */
};

void disk_init(struct disk *d, const uint8_t *bytes, uint64_t length);
void disk_free(struct disk *d);
void disk_copy(struct disk *to, const struct disk *from);
bool disk_equal(const struct disk *a, const struct disk *b);

void disk_get(const struct disk *d, void *buf, size_t len, uint64_t off);
void disk_put(struct disk *d, const void *buf, size_t len, uint64_t off);
void disk_resize(struct disk *d, uint64_t length);
uint64_t disk_allocated(const struct disk *d);

struct zqcow2_backend *disk_backend(struct disk *d);
struct zqcow2_hooks disk_hooks(struct disk *d);
/* The next call of the library may move so many bytes of the caller's, and cost what is due. */
void disk_allow(struct disk *d, uint64_t moved);
/* A finding: says what, and ends. */
void fuzz_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif
