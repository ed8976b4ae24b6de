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
    ZQCOW2_AMEND_LAZY_REFCOUNTS = 1 << 0,    /* turns them on; only version 3, without zones */
    ZQCOW2_AMEND_NO_LAZY_REFCOUNTS = 1 << 1, /* turns them off */
    ZQCOW2_AMEND_NO_RAW_DATA = 1 << 2        /* the data file no longer has to be usable without
                                                the image */
};

struct zqcow2_amend_options {
    size_t size;
    uint32_t flags;                   /* zqcow2_amend_flag */
    uint32_t version;                 /* 2 (compat 0.10) or 3 (1.1); 0: unchanged */
    uint32_t refcount_bits;           /* a power of two, 1 .. 64; 0: unchanged */
    uint32_t layout;                  /* ZQCOW2_LAYOUT_44; 0: unchanged */
    const struct zqcow2_hooks *hooks; /* NULL: defaults */
    /*
     * Opens the backing files, as open_options.resolve does. Called only for a change to version 2.
     * That version has no zero clusters, so those of the image are first replaced: see
     * zqcow2_amend(3).
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
 * Changes features of the image in `be`. The image must not be open; the caller keeps be. The
 * content of the device does not change. One write puts all changes of a call into effect: after an
 * error or a power loss, the image has all of them or none, and no cluster is leaked. A change to
 * layout 44 also sets the feature bit that zoned images of some revisions lack, and removes the
 * limit on the size of an append, which layout 44 cannot store. EFEATURE: the changed image could
 * not hold everything that the image holds now (for example, version 2 has no zones, and a narrow
 * refcount cannot count many references); the text names the reason. ECORRUPT: zqcow2_check() would
 * find a corruption. -EBUSY: the backend is in use.
 */
ZQCOW2_API int zqcow2_amend(struct zqcow2_backend *be, const struct zqcow2_amend_options *opt,
                            struct zqcow2_error *err);

/* ---- compression ---- */

struct zqcow2_compact_options {
    size_t size;
    uint64_t offset, length; /* whole zones; length 0: to the end of the device */
    uint32_t level;          /* compression level: zlib 1 .. 9, zstd 1 .. 22; 0: default */
    uint32_t reserved;
    /*
     * Called before each cluster in the calling thread, with the bytes done and the bytes of the
     * range. If it returns nonzero, the call stops and returns -ECANCELED. May be NULL.
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
    uint64_t clusters;             /* clusters that the call tried to compress */
    uint64_t compressed;           /* how many of them are now compressed */
    uint64_t old_bytes, new_bytes; /* space of the compressed ones in the file, before
                                      and after */
};
#define ZQCOW2_COMPACT_RESULT_INIT \
    { \
        sizeof(struct zqcow2_compact_result), 0, 0, 0, 0 \
    }

/*
 * Compresses the clusters of FULL zones with the compression type of the image. At every instant,
 * and after a power loss, reads return the same data as before. The space that is saved is reused
 * or returned to the host. The image can be used meanwhile. A request that changes the zone being
 * compressed, such as a reset, waits until the current cluster is done. Several threads may call
 * this function at the same time, each for its own range. Clusters that a snapshot shares, that are
 * already compressed or that would not become smaller stay as they are. ENOTZONED: the image
 * has no zones. -EOPNOTSUPP: it has a data file. After any other error, the clusters already
 * compressed stay compressed; call again to compress the rest. opt, result and err may be NULL.
 * *result is set even after an error.
 */
ZQCOW2_API int zqcow2_compact(struct zqcow2_image *img, const struct zqcow2_compact_options *opt,
                              struct zqcow2_compact_result *result, struct zqcow2_error *err);

#ifdef __cplusplus
}
#endif
#endif
