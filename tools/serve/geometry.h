/* SPDX-License-Identifier: MIT */
/* The geometry of a served image, in words. */
#ifndef ZQ_TOOLS_SERVE_GEOMETRY_H
#define ZQ_TOOLS_SERVE_GEOMETRY_H

#include "tool.h"

/* Bytes, in whole blocks: what the image allows of a request that carries at most max_io. */
uint32_t serve_largest_append(const struct zqcow2_info *info, uint32_t max_io);
/* Of 512 bytes, as many as 32 bits can say. */
uint32_t serve_sectors(uint64_t bytes);
/* Of a power of two. */
uint8_t serve_shift(uint32_t n);
/* One or two indented lines; `append` is the largest that the device takes. */
void serve_put_geometry(FILE *out, const struct zqcow2_info *info, bool read_only, uint32_t append);

#endif
