/* SPDX-License-Identifier: MIT */
/* Opening and closing: between a backend full of bytes and a core that serves requests. */
#ifndef ZQ_IMAGE_IMAGE_H
#define ZQ_IMAGE_IMAGE_H

#include <zqcow2/change.h>

#include "loop/core.h"

/* core comes first: a pointer to it is a pointer to the image. */
struct zqcow2_image {
    struct zq_core core;
    struct zqcow2_open_options opt; /* for an activation; without hooks */
    struct zqcow2_info info;        /* while the image is not active; guarded by the mutex */
};

/*
 * Takes the backend on success only. *out is written last, so a failure leaves it as it was, and
 * everything that was taken on the way, the backend's lock too, is given back.
 */
int zq_image_open(struct zqcow2_backend *be, const struct zqcow2_open_options *opt,
                  struct zqcow2_image **out, struct zqcow2_error *err);
/*
 * The same for moving what the image itself holds into what it stands on, which is not opened. With
 * RDWR the file is locked and recovered as for a writer, and then read only: what lies below may
 * change meanwhile.
 */
int zq_image_open_layer(struct zqcow2_backend *be, const struct zqcow2_open_options *opt,
                        struct zqcow2_image **out, struct zqcow2_error *err);
/*
 * The same for mapping what a sequential zone inherits: its zones are not in force, so that each
 * byte is written as one of a conventional zone. The write pointers stay as they are. What lies
 * below them must not change, and what lies beyond must not be read: a source could refuse it.
 */
int zq_image_open_flat(struct zqcow2_backend *be, const struct zqcow2_open_options *opt,
                       struct zqcow2_image **out, struct zqcow2_error *err);
/*
 * Has the backing file of a layer opened for writing, not yet entered, and says in *what how it is
 * named and read; if *what has a name, the file of that name. opt: as the layer was opened with.
 */
int zq_image_open_below(struct zqcow2_image *layer, const struct zqcow2_open_options *opt,
                        struct zqcow2_backing *what, struct zqcow2_backend **be,
                        struct zqcow2_error *err);
/* ECORRUPT: check finds something wrong with a layer. */
int zq_image_check_layer(struct zqcow2_image *layer, struct zqcow2_error *err);
/*
 * Makes a layer map nothing, and gives its space back. In a crash it maps what it did, or less of
 * it, or nothing. Afterwards the layer can only be closed.
 */
int zq_image_empty_layer(struct zqcow2_image *layer, struct zqcow2_error *err);
/* A sequential zone as its write pointer is, whatever state is forced or stored. */
struct zq_zone_view {
    uint64_t start, wp, end; /* end: of its capacity; wp is there if the zone is FULL */
    uint8_t stored;          /* the byte in the table of persistent states */
};
struct zq_zone_view zq_image_zone(struct zqcow2_image *img, uint32_t zone);
/* Has it a table of persistent states, or room in its header to name one? */
bool zq_image_may_store(struct zqcow2_image *img);
/* In front of what was wrong with a backing file, its name. Returns rc. */
int zq_image_blame_below(struct zqcow2_error *err, const struct zqcow2_backing *what, int rc);
/*
 * What is made zeros gets an entry that says so even where nothing is below now: there may be, when
 * the image has been put on another backing file (S4). Of an image that nobody else uses.
 */
void zq_image_mask_all(struct zqcow2_image *img);
/* What zqcow2_check() does, without taking the lock. */
int zq_image_check(struct zqcow2_backend *be, const struct zqcow2_hooks *hooks,
                   const struct zqcow2_check_options *opt, struct zqcow2_check_result *res,
                   struct zqcow2_error *err);
/*
 * Gives the file to another program (H2), and takes it back. An image that is so already stays so.
 * After an error of inactivate it is active, of activate it is inactive.
 */
int zq_image_inactivate(struct zqcow2_image *img, struct zqcow2_error *err);
int zq_image_activate(struct zqcow2_image *img, struct zqcow2_error *err);
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
/*
 * The same of a closed file: enters the backend, and does not open what it names now. 1: it has
 * zones, and nothing was changed.
 */
int zq_image_rename_closed(struct zqcow2_backend *be, const struct zqcow2_hooks *hooks,
                           const struct zqcow2_backing *to, struct zqcow2_error *err);
/*
 * Changes the form of a closed image: enters the backend, recovers it, and does not open what it
 * names. to: 0 for what stays. EFEATURE: it holds what it could not hold then. trial: changes
 * nothing, and refuses what would be refused, except for zero clusters.
 */
int zq_image_amend(struct zqcow2_backend *be, const struct zqcow2_amend_options *to,
                   const struct zqcow2_hooks *hooks, bool trial, struct zqcow2_error *err);
/* One moment of the image, under its mutex; info->size is the caller's concern. */
void zq_image_info(struct zqcow2_image *img, struct zqcow2_info *info);

#endif
