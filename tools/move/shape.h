/* SPDX-License-Identifier: MIT */
/* What the image is like that a disk is copied to. */
#ifndef ZT_MOVE_SHAPE_H
#define ZT_MOVE_SHAPE_H

#include "image_options.h"

/*
 * As `image` has it, and where that leaves it open, with the size and the zones of a disk. The
 * caller adds flags and progress.
 */
struct zqcow2_create_options zt_copy_options(const struct zt_image_options *image,
                                             const struct zqcow2_info *disk);
/* False after reporting under `name` why there can be no such image. */
bool zt_can_create(const char *name, const struct zqcow2_create_options *opt);

#endif
