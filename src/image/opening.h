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
    bool layer;                    /* by itself: see zq_image_open_layer() */
    bool flat;                     /* zones not in force: see zq_image_open_flat() */
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

struct zqcow2_image;
/* An image without parts, and the end of any that nothing runs on. */
int zq_image_new(const struct opening *o, struct zqcow2_image **out);
void zq_image_free(struct zqcow2_image *img);
/* Under the mutex: nobody begins anything any more, and the parts can go. */
void zq_image_rest(struct zqcow2_image *img);
/* Under the mutex: the parts are there. */
void zq_image_wake(struct zqcow2_image *img);
/*
 * Reads the header of a file that is locked, and makes the file what a writer may rely on: flushed,
 * recovered, and without features that would not hold.
 */
int zq_opening_read(struct opening *o);
/*
 * Then builds the parts of an image, whose core is new, or inactive. After an error there are none.
 */
int zq_opening_build(struct opening *o, struct zq_core *c);
/*
 * Reads and checks the header cluster: h, g, backing and file_size. Called again after recovery,
 * which may have rewritten the header.
 */
int zq_opening_header(struct opening *o);
/*
 * R12: recovers an image that was not closed cleanly; its header is read again. For a writer that
 * has entered and flushed.
 */
int zq_opening_recover(struct opening *o);
/*
 * Makes h that of the disk that opt.snapshot names: what its L1 and its size are, and nothing
 * else. For reading only.
 */
int zq_opening_snapshot(struct opening *o);
/*
 * The write-pointer table of a header with zones, each entry checked, in zq_pointers_bytes(&o->g);
 * *table is the caller's to free, also after an error.
 */
int zq_opening_pointers(struct opening *o, uint8_t **table);
/*
 * R15: the table of stored states, each checked, in zq_states_bytes(h.states_zones); NULL: none is
 * stored, or what is does not hold. *table is the caller's to free, also after an error.
 */
int zq_opening_states(struct opening *o, uint8_t **table);
/*
 * Makes the parts, and loads L1 and, for a writer, the refcount table. What was made before an
 * error stays in the parts: their owner closes them, as after a success.
 */
int zq_opening_tables(struct opening *o, const struct zq_parts *p);
/* The format of what *b names, stored or given by the caller; EFEATURE: it is not one of ours. */
int zq_opening_format(const struct opening *o, const struct zqcow2_backing *b, uint32_t depth,
                      const char **format);
/*
 * Opens what *b names, as the backing file at that depth below o, and locks it. The caller ends
 * that with zq_be_leave() and zqcow2_backend_close().
 */
int zq_opening_resolve(const struct opening *o, const struct zqcow2_backing *b, uint32_t depth,
                       struct zqcow2_backend **be);
/* Calls the resolver, and no more: *be is the caller's after a success. */
int zq_opening_call(const struct opening *o, const char *name, const char *format, uint32_t depth,
                    struct zqcow2_backend **be);
/* The same by name; depth as the resolver gets it. With WRITE it is entered for writing. */
int zq_opening_named(const struct opening *o, const char *name, const char *format, uint32_t depth,
                     struct zqcow2_backend **be);
static inline bool zq_opening_has_data_file(const struct opening *o)
{
    return o->h.incompat & ZQ_INCOMPAT_DATA_FILE;
}
/*
 * Opens the data file of the image at that depth, or with NO_BACKING makes one that is absent. Its
 * I/O completes in c's loop. What was opened before an error belongs to *d all the same.
 */
int zq_opening_data_file(struct opening *o, struct zq_core *c, uint32_t depth,
                         struct zq_data_file *d);
/* For a check: can the data file be opened, and does it cover the device? */
int zq_opening_look_at_data(const struct opening *o);
/* Of a raw one. The last bytes may be less than a sector: zeros follow, as in other programs. */
int zq_opening_raw_size(struct zqcow2_backend *be, uint64_t *size);
/* S12: may an image with `top`'s zones, or without, stand on o? EFEATURE says why not. */
int zq_opening_same_zones(const struct opening *top, const struct opening *o);
/* In front of what was wrong with a file, what it is and its name. Returns rc. */
int zq_opening_blame(struct zqcow2_error *err, const char *what, const char *which, int rc);
/* Opens the chain below the image, if it names one. core_fini closes it, whatever this returns. */
int zq_opening_sources(struct opening *o, struct zq_core *c);
/*
 * Loads the bitmaps, for a writer: behind the tables, which none of them may lie on. EFEATURE: one
 * is enabled that cannot be kept right.
 */
int zq_opening_bitmaps(struct opening *o, struct zq_core *c);
/*
 * What only a writer requires of the loaded tables: that they are counted and that none is named
 * twice; and where the snapshots' tables lie, so that they are never taken for free.
 */
int zq_opening_trust(struct opening *o, struct zq_core *c);

#endif
