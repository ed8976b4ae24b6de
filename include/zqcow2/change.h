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

/* ---- compression ---- */

struct zqcow2_compact_options {
    size_t size;
    uint64_t offset, length; /* whole zones; length 0: up to the end of the device */
    uint32_t level;          /* of compression: zlib 1 .. 9, zstd 1 .. 22; 0: the default */
    uint32_t reserved;
    /* Called for every cluster, in the calling thread; may be NULL. Not 0: stop, with -ECANCELED.
     */
    int (*progress)(void *arg, uint64_t done, uint64_t total);
    void *progress_arg;
};
#define ZQCOW2_COMPACT_OPTIONS_INIT \
    { \
        sizeof(struct zqcow2_compact_options), 0, 0, 0, 0, NULL, NULL \
    }

struct zqcow2_compact_result {
    size_t size;
    uint64_t clusters;             /* that have been tried */
    uint64_t compressed;           /* of these, such as became smaller */
    uint64_t old_bytes, new_bytes; /* of the compressed ones in the file, before and after */
};
#define ZQCOW2_COMPACT_RESULT_INIT \
    { \
        sizeof(struct zqcow2_compact_result), 0, 0, 0, 0 \
    }

/*
 * Compresses the clusters of FULL zones, in place of what they were, by the image's type of
 * compression. What the device reads as is the same at every instant, also after power loss, and
 * their space goes back to the host. The image stays in use: writes to other zones, reads and
 * resets go on, and a reset of a zone that is compacted waits for one cluster. Several threads may
 * call it for ranges of their own, so that each compresses. What snapshots share, what is
 * compressed already and what does not become smaller stays. EFEATURE: the image has no zones, or a
 * data file. After any other error what has been compressed stays so; another call does the rest.
 * opt, result and err may be NULL. result is also set after an error.
 */
ZQCOW2_API int zqcow2_compact(struct zqcow2_image *img, const struct zqcow2_compact_options *opt,
                              struct zqcow2_compact_result *result, struct zqcow2_error *err);

#ifdef __cplusplus
}
#endif
#endif
