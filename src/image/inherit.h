/* SPDX-License-Identifier: MIT */
/* What a new image takes over from its backing file. */
#ifndef ZQ_IMAGE_INHERIT_H
#define ZQ_IMAGE_INHERIT_H

#include "image/opening.h"

/* The backing file while the image above it is created; all 0 where it is not opened. */
struct zq_inherit {
    struct opening o;  /* o.g.layout NONE: it has no zones */
    uint8_t *pointers; /* its write-pointer table; NULL: it has no zones */
    uint8_t *states;   /* its table of stored states; NULL: it has none that hold */
};

/*
 * Opens the backing file that opt names, if there is a resolver, for the image that is created in
 * be. What opt leaves open is set to what the backing file has; what it must not differ in is
 * refused. zq_inherit_end() follows, whatever this returns.
 */
int zq_inherit_begin(struct zq_inherit *in, struct zqcow2_backend *be,
                     struct zqcow2_create_options *opt, const struct zqcow2_hooks *hooks,
                     struct zqcow2_error *err);
void zq_inherit_end(struct zq_inherit *in);
/* The zone as the new image begins with it. */
void zq_inherit_zone(const struct zq_inherit *in, uint32_t zone, struct zq_entry *e);
/* The stored state that it begins with; 0: the one that follows from its write pointer. */
uint8_t zq_inherit_state(const struct zq_inherit *in, uint32_t zone);
/* The descriptor extensions that n zones begin with: zeros where there is none. */
int zq_inherit_descriptors(const struct zq_inherit *in, uint32_t zone, uint32_t n, uint8_t *buf);

#endif
