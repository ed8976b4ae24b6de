/* SPDX-License-Identifier: MIT */
/* Opening and closing: between a backend full of bytes and a core that serves requests. */
#ifndef ZQ_IMAGE_IMAGE_H
#define ZQ_IMAGE_IMAGE_H

#include "loop/core.h"

/* By value, and nothing else: a pointer to the core is a pointer to the image. */
struct zqcow2_image {
    struct zq_core core;
};

/*
 * Takes the backend on success only. *out is written last, so a failure leaves it as it was, and
 * everything that was taken on the way, the backend's lock too, is given back.
 */
int zq_image_open(struct zqcow2_backend *be, const struct zqcow2_open_options *opt,
                  struct zqcow2_image **out, struct zqcow2_error *err);
/* What zqcow2_check() does, without taking the lock. */
int zq_image_check(struct zqcow2_backend *be, const struct zqcow2_hooks *hooks,
                   const struct zqcow2_check_options *opt, struct zqcow2_check_result *res,
                   struct zqcow2_error *err);
/* -EBUSY: something still runs, and the image stays open. Any other result: it is gone. */
int zq_image_close(struct zqcow2_image *img);
/* What the header says of the backing file, also if it was not opened; an empty name if nothing. */
int zq_image_backing(struct zqcow2_image *img, struct zqcow2_backing *backing);
/*
 * Changes what a file's header names as its backing file: old or new after a crash. The caller has
 * entered the backend, and no I/O is in flight. h, sector0: of the file as it is; updated.
 */
int zq_image_rename(struct zqcow2_backend *be, const struct zqcow2_hooks *hooks,
                    struct zq_header *h, uint8_t sector0[ZQ_SECTOR],
                    const struct zqcow2_backing *to, struct zqcow2_error *err);
/* The same of a closed file: enters the backend, and does not open what it names now. */
int zq_image_rename_closed(struct zqcow2_backend *be, const struct zqcow2_hooks *hooks,
                           const struct zqcow2_backing *to, struct zqcow2_error *err);
/* One moment of the image, under its mutex; info->size is the caller's concern. */
void zq_image_info(struct zqcow2_image *img, struct zqcow2_info *info);

#endif
