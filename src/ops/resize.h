/* SPDX-License-Identifier: MIT */
/* Changes the size of the device while the image is in use (G1-G4). */
#ifndef ZQ_OPS_RESIZE_H
#define ZQ_OPS_RESIZE_H

#include "loop/core.h"

/* flags: zqcow2_resize_flag. Blocks; an error has its text where the number does not say it. */
int zq_resize_run(struct zq_core *c, uint64_t size, uint32_t flags, struct zqcow2_error *err);

#endif
