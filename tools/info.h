/* SPDX-License-Identifier: MIT */
/* An image as the verb info has it before it, and its form in the words of qemu-img. */
#ifndef ZT_INFO_H
#define ZT_INFO_H

#include "json.h"
#include "tool.h"

/* An image of a chain, or a raw file at its end. */
struct zt_layer {
    const char *path;
    bool raw;
    struct zqcow2_image *img; /* not of a raw one */
    struct zqcow2_info info;  /* of a raw one only the sizes */
    struct zqcow2_backing backing;
};

/* What the file takes of its file system; UINT64_MAX: it is none, or not to be seen. */
uint64_t zt_disk_size(const char *path);
/* The disk can be read whatever is wrong with its bitmaps: they are left out, with a message. */
void zt_list_bitmaps(const struct zt_layer *l, zqcow2_bitmap_fn *each, void *arg);

/* As `qemu-img info` prints it, and with --output=json. */
void zt_qemu_info_text(const struct zt_layer *l);
void zt_qemu_info_json(struct zt_json *j, const struct zt_layer *l);

#endif
