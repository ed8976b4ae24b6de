/* SPDX-License-Identifier: MIT */
/* What changes the form of an image, and not what it reads as. */
#ifndef ZQCOW2_CHANGE_H
#define ZQCOW2_CHANGE_H

#include <zqcow2/zqcow2.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- features ---- */

enum zqcow2_amend_flag {
    ZQCOW2_AMEND_LAZY_REFCOUNTS = 1 << 0,    /* on; plain images of version 3 */
    ZQCOW2_AMEND_NO_LAZY_REFCOUNTS = 1 << 1, /* off */
    ZQCOW2_AMEND_NO_RAW_DATA = 1 << 2        /* the data file need no longer be usable by itself */
};

struct zqcow2_amend_options {
    size_t size;
    uint32_t flags;                   /* zqcow2_amend_flag */
    uint32_t version;                 /* 2 (compat 0.10) or 3 (1.1); 0: as it is */
    uint32_t refcount_bits;           /* 1, 2, 4 .. 64; 0: as it is */
    uint32_t layout;                  /* ZQCOW2_LAYOUT_44; 0: as it is */
    const struct zqcow2_hooks *hooks; /* NULL: defaults */
    /*
     * Opens the backing files, as open_options.resolve does. Only called for version 2, which has
     * no zero clusters: those of the image are given other forms of zeros first.
     */
    int (*resolve)(void *arg, const char *name, const char *format, uint32_t depth,
                   struct zqcow2_backend **be, struct zqcow2_error *err);
    void *resolve_arg;
};
#define ZQCOW2_AMEND_OPTIONS_INIT \
    { \
        sizeof(struct zqcow2_amend_options), 0, 0, 0, 0, NULL, NULL, NULL \
    }

/*
 * Changes the features of the image in `be`, which must not be open. What it reads as stays the
 * same. All changes of a call are made by one write: after an error or power loss the image has all
 * or none of them, and no cluster leaks. Layout 44 also sets the feature bit that zoned images of
 * some revisions lack; it stores no limit for appends, so the limit is lost. EFEATURE: the image
 * holds what it could not hold then, such as zones in version 2, or a cluster with more references
 * than refcounts can count; err says what. ECORRUPT: zqcow2_check() finds something to repair.
 * EBUSY: the image is in use. The caller keeps be. err may be NULL.
 */
ZQCOW2_API int zqcow2_amend(struct zqcow2_backend *be, const struct zqcow2_amend_options *opt,
                            struct zqcow2_error *err);

#ifdef __cplusplus
}
#endif
#endif
