/* SPDX-License-Identifier: MIT */
/* The data file of an image that is being created. */
#ifndef ZQ_IMAGE_NEW_DATA_H
#define ZQ_IMAGE_NEW_DATA_H

#include "image/opening.h"

/* All 0 where there is none. */
struct zq_new_data {
    struct zqcow2_backend *be; /* locked, until the image is there */
    bool anew;                 /* it was empty: nothing of anybody's is in it */
};

/*
 * Opens the data file that opt names, for the image that is created in be, and makes it as long as
 * the device, durably: the image's header is written later. zq_new_data_end() follows.
 */
int zq_new_data_begin(struct zq_new_data *d, struct zqcow2_backend *be,
                      const struct zqcow2_create_options *opt, const struct zqcow2_hooks *hooks,
                      struct zqcow2_error *err);
void zq_new_data_end(struct zq_new_data *d);

#endif
