/* SPDX-License-Identifier: MIT */
/* Opening and closing: between a backend full of bytes and a core that serves requests. */
#ifndef ZQ_IMAGE_IMAGE_H
#define ZQ_IMAGE_IMAGE_H

#include "loop/core.h"

struct zqcow2_image {
    struct zq_core core;
};

int zq_image_open(struct zqcow2_backend *be, const struct zqcow2_open_options *opt,
                  struct zqcow2_image **out, struct zqcow2_error *err);
int zq_image_close(struct zqcow2_image *img);
void zq_image_info(struct zqcow2_image *img, struct zqcow2_info *info);

#endif
