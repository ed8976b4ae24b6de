/* SPDX-License-Identifier: MIT */
/* What the parts of opening an image share. */
#ifndef ZQ_IMAGE_OPENING_H
#define ZQ_IMAGE_OPENING_H

#include "loop/core.h"

/*
 * What is known while an image is being opened. It lives on the stack of the opening call and owns
 * no memory; what is loaded goes into the core, which frees it, whether opening succeeds or not.
 */
struct opening {
    struct zqcow2_backend *be;      /* the caller's until open succeeds; locked */
    struct zqcow2_open_options opt; /* a copy: members that an old caller lacks are 0 */
    struct zqcow2_error *err;
    struct zqcow2_hooks hooks;     /* complete: the defaults are filled in */
    struct zq_header h;            /* checked; offsets and sizes may be relied on */
    struct zq_geometry g;          /* layout NONE: no zones */
    struct zqcow2_backing backing; /* what the header says; name "": nothing */
    uint64_t file_size;            /* bytes, when the header was read */
    bool rdwr, bit_missing;        /* bit_missing: zoned by its extension, without feature bit 5 */
    uint8_t sector0[ZQ_SECTOR];    /* as on disk: what is changed in it is written whole */
};

/* What finds clusters, of an image or of one of its sources. */
struct zq_parts {
    struct zq_iox *x; /* of the file that the parts lie in; initialised */
    struct zq_cache *cache;
    struct zq_alloc *alloc;
    struct zq_map *map;
    uint64_t cache_bytes; /* raised to what one gather needs */
    uint32_t nr_zones;    /* whose runs the map remembers */
};

/*
 * Reads and checks the header cluster: h, g, backing and file_size. Called again after recovery,
 * which may have rewritten the header.
 */
int zq_opening_header(struct opening *o);
/*
 * Makes the parts, and loads L1 and, for a writer, the refcount table. What was made before an
 * error stays in the parts: their owner closes them, as after a success.
 */
int zq_opening_tables(struct opening *o, const struct zq_parts *p);
/* Opens the chain below the image, if it names one. core_fini closes it, whatever this returns. */
int zq_opening_sources(struct opening *o, struct zq_core *c);
/*
 * What only a writer requires of the loaded tables: that they are counted and that none is named
 * twice; and where the snapshots' tables lie, so that they are never taken for free.
 */
int zq_opening_trust(struct opening *o, struct zq_core *c);

#endif
