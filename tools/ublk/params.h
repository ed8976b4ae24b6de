/* SPDX-License-Identifier: MIT */
/* The driver's parameters of a disk, and whether an image fits a disk that exists. */
#ifndef ZQ_TOOLS_UBLK_PARAMS_H
#define ZQ_TOOLS_UBLK_PARAMS_H

#include <stdbool.h>

#include "serve/image.h"
#include "ublk/abi.h"

/* What Linux asks of a zoned device; the driver would only say "invalid argument". */
int ublk_params_check(const struct serve_image *image, struct serve_report *report);
/* Of an open image; `max_io` is the largest request in bytes. */
void ublk_params_fill(struct ublk_params *p, const struct serve_image *image, bool read_only,
                      uint32_t max_io);
/* The first thing in which the image differs from the device, in words; NULL: none. */
const char *ublk_params_difference(const struct ublk_params *image,
                                   const struct ublk_params *device);

#endif
