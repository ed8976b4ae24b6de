/* SPDX-License-Identifier: MIT */
/*
 * A folder of the host with images that stand on each other, bent by hand. Every attempt at one
 * must leave neither memory nor descriptors behind, and must not wait.
 */
#ifndef HOSTILE_FOLDER_H
#define HOSTILE_FOLDER_H

#include <zqcow2/backend.h>

#define KiB(n) ((uint64_t)(n) << 10)

void folder_make(void);
void folder_remove(void);
/* The path of a file in it. Valid until the fourth call from here. */
const char *folder_path(const char *name);

/* An image of these options, anew. NULL: plain, 256 KiB in clusters of 4 KiB. */
void folder_image(const char *name, const struct zqcow2_create_options *o);
void folder_bytes(const char *name, const void *bytes, size_t len, uint64_t off);
void folder_put(const char *name, uint64_t off, unsigned width, uint64_t value); /* big-endian */
uint64_t folder_get(const char *name, uint64_t off, unsigned width);
void folder_cut(const char *name, uint64_t length);
/* What a plain image, or one with nothing but zones, names as its backing file. */
void folder_name(const char *name, const void *backing, size_t len, const char *format);
/* Where the first L2 entry of an image lies. */
uint64_t folder_l2(const char *name);
/* Bytes of 1 at `off`, through the library. */
void folder_write(const char *name, uint64_t off, size_t len);

/*
 * Opens `image` with a resolver of files, reads `len` bytes at `off` if len is not 0, and closes
 * it. The text of an open that was refused is in err, that of a read in folder_logged.
 */
struct attempt {
    const char *image, *root; /* root: a folder in this one, or NULL */
    uint64_t off, len;
    uint32_t flags;
    int open, read; /* what they returned */
    struct zqcow2_error err;
};

extern char folder_logged[512];

void folder_try(struct attempt *a);
/* The first finding of a check, or its refusal. */
const char *folder_check(const char *name, struct zqcow2_check_result *res);

#endif
