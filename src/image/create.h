/* SPDX-License-Identifier: MIT */
/* Making a new, empty image in a backend. */
#ifndef ZQ_IMAGE_CREATE_H
#define ZQ_IMAGE_CREATE_H

#include "device/backend.h"

/* All that zqcow2_create() does, the lock included. be stays the caller's. */
int zq_create(struct zqcow2_backend *be, const struct zqcow2_create_options *opt,
              struct zqcow2_error *err);

#endif
