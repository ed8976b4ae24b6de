/* SPDX-License-Identifier: MIT */
/* Calls that change how an image is stored, but not the content of its device. */
#ifndef ZQCOW2_CHANGE_H
#define ZQCOW2_CHANGE_H

#include <zqcow2/zqcow2.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- features ---- */

enum zqcow2_amend_flag {
    ZQCOW2_AMEND_LAZY_REFCOUNTS = 1 << 0,    /* on; only version 3, without zones */
    ZQCOW2_AMEND_NO_LAZY_REFCOUNTS = 1 << 1, /* off */
    ZQCOW2_AMEND_NO_RAW_DATA = 1 << 2        /* no longer keep the data file usable by itself */
};

struct zqcow2_amend_options {
    size_t size;
    uint32_t flags;                   /* zqcow2_amend_flag */
    uint32_t version;                 /* 2 (compat 0.10) or 3 (1.1); 0: unchanged */
    uint32_t refcount_bits;           /* 1, 2, 4 .. 64; 0: unchanged */
    uint32_t layout;                  /* ZQCOW2_LAYOUT_44; 0: unchanged */
    const struct zqcow2_hooks *hooks; /* NULL: defaults */
    /*
     * Opens the backing files, as open_options.resolve does. Called only for a change to version 2,
     * which has no zero clusters: those of the image are first replaced, see zqcow2_amend(3).
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
 * Changes features of the image in `be`, which must not be open; the caller keeps be. The content
 * of the device does not change. One write makes all changes of a call: after an error or a power
 * loss, the image has all or none of them, and no cluster is leaked. A change to layout 44 also
 * sets the feature bit that zoned images of some revisions lack, and loses the limit for appends,
 * which layout 44 cannot store. EFEATURE: the changed image could not hold what it holds now, such
 * as zones in version 2, or more references to a cluster than a refcount can count; the text names
 * the reason. ECORRUPT: zqcow2_check() finds a corruption. -EBUSY: the backend is in use.
 */
ZQCOW2_API int zqcow2_amend(struct zqcow2_backend *be, const struct zqcow2_amend_options *opt,
                            struct zqcow2_error *err);

#ifdef __cplusplus
}
#endif
#endif
