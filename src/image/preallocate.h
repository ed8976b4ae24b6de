/* SPDX-License-Identifier: MIT */
/* What a new image has mapped, and allocated, before its first write. */
#ifndef ZQ_IMAGE_PREALLOCATE_H
#define ZQ_IMAGE_PREALLOCATE_H

#include "device/backend.h"
#include "format/entry.h"
#include "format/header.h"
#include "format/zone_ext.h"

/* tables 0: nothing is preallocated. */
struct zq_preallocation {
    struct zq_form form;
    uint32_t mode;              /* zqcow2_preallocation: what the caller has asked for */
    bool hollow;                /* entries name clusters, but have no content: subclusters */
    bool elsewhere;             /* the data lies in a data file, each cluster in its place */
    uint64_t size;              /* of the device */
    uint64_t tables, l2_offset; /* of L2: how many, one after the other */
    /* Clusters of the device: all; mapped; those in front, which all are; of a zone behind them,
       and how many of these are mapped, from its start. */
    uint64_t clusters, mapped, flat, in_zone, below_capacity;
    uint64_t data_offset; /* of the mapped ones, contiguous in the image file */
    int (*progress)(void *arg, uint64_t done, uint64_t total);
    void *progress_arg;
    uint64_t done;
};

/* What the options ask for; h is complete, except for offsets, and so is g. An error has its text.
 */
int zq_preallocation_plan(struct zq_preallocation *p, const struct zq_header *h,
                          const struct zq_geometry *g, const struct zqcow2_create_options *o,
                          struct zqcow2_error *err);
/* Clusters that the image file needs for it, tables and data. */
uint64_t zq_preallocation_clusters(const struct zq_preallocation *p);
/* They lie from `at` on. */
void zq_preallocation_place(struct zq_preallocation *p, uint64_t at);
/* Entry number i of L1; 0 without preallocation. */
uint64_t zq_preallocation_l1(const struct zq_preallocation *p, uint64_t i);
/* The host's space for the data, where asked for: a full host refuses it before anything else. */
int zq_preallocation_space(struct zq_preallocation *p, struct zqcow2_backend *data,
                           struct zqcow2_error *err);
/* The L2 tables; buf has `room` bytes, a multiple of an entry's. */
int zq_preallocation_tables(struct zq_preallocation *p, struct zqcow2_backend *be, uint8_t *buf,
                            uint64_t room);

#endif
