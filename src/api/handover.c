/* SPDX-License-Identifier: MIT */
/* Hand-over of an image between programs. */
#include <zqcow2/handover.h>
#include "image/image.h"

int zqcow2_inactivate(struct zqcow2_image *img, struct zqcow2_error *err)
{
    return zq_image_inactivate(img, err);
}

int zqcow2_activate(struct zqcow2_image *img, struct zqcow2_error *err)
{
    return zq_image_activate(img, err);
}
