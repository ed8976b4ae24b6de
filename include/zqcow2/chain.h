/* SPDX-License-Identifier: MIT */
/*
 * Calls that work on an image and its backing files. They take the backend of the image. The image
 * must not be open; the caller keeps the backend. See zqcow2-layers(7).
 */
#ifndef ZQCOW2_CHAIN_H
#define ZQCOW2_CHAIN_H

#include <zqcow2/zqcow2.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- another backing file ---- */

enum zqcow2_rebase_flag {
    /*
     * Changes the name and the format, and copies nothing: for a backing file that has been moved
     * or renamed. For an image with zones, the new backing file is opened. EFEATURE: its zones or
     * write pointers do not fit the image; see zqcow2_rebase(3).
     */
    ZQCOW2_REBASE_NAME_ONLY = 1 << 0
};

struct zqcow2_rebase_options {
    size_t size;
    uint32_t flags; /* zqcow2_rebase_flag */
    uint32_t reserved;
    const struct zqcow2_hooks *hooks; /* NULL: defaults */
    const char *backing_name;   /* stored as given; NULL: the image will have no backing file */
    const char *backing_format; /* "raw" or "qcow2"; required with backing_name, else NULL */
    /* Opens the backing files, old and new, as open_options.resolve does. */
    int (*resolve)(void *arg, const char *name, const char *format, uint32_t depth,
                   struct zqcow2_backend **be, struct zqcow2_error *err);
    void *resolve_arg;
    /*
     * Called at intervals in the calling thread, with the bytes done and the size of the device. If
     * it returns nonzero, the call stops and returns -ECANCELED. May be NULL.
     */
    int (*progress)(void *arg, uint64_t done, uint64_t total);
    void *progress_arg;
};
#define ZQCOW2_REBASE_OPTIONS_INIT \
    { \
        sizeof(struct zqcow2_rebase_options), 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL \
    }

/*
 * Gives the image in `be` another backing file. The content of the device does not change: data of
 * the old backing file that differs from the new one is first copied into the image. (With
 * ZQCOW2_REBASE_NAME_ONLY nothing is copied: if the new file has other content, so has the device.)
 * If the call fails, is stopped or is interrupted by a crash, the content is unchanged, and the
 * image has its old backing file. Exception: if the write of the header, or the flush after it,
 * fails or is interrupted, the image may have either backing file. In all these cases, some data
 * may already have been copied.
 */
ZQCOW2_API int zqcow2_rebase(struct zqcow2_backend *be, const struct zqcow2_rebase_options *opt,
                             struct zqcow2_error *err);

/* ---- moving data into the backing file ---- */

enum zqcow2_commit_flag {
    ZQCOW2_COMMIT_KEEP = 1 << 0 /* does not empty the image */
};

struct zqcow2_commit_options {
    size_t size;
    uint32_t flags; /* zqcow2_commit_flag */
    uint32_t reserved;
    const struct zqcow2_hooks *hooks; /* NULL: defaults */
    /*
     * Opens the backing file for writing, with ZQCOW2_RESOLVE_WRITE added to depth, and the files
     * below it for reading, as open_options.resolve does.
     */
    int (*resolve)(void *arg, const char *name, const char *format, uint32_t depth,
                   struct zqcow2_backend **be, struct zqcow2_error *err);
    void *resolve_arg;
    const char *backing_format; /* "raw" or "qcow2": used if the image names no format */
    /* As in zqcow2_rebase_options. */
    int (*progress)(void *arg, uint64_t done, uint64_t total);
    void *progress_arg;
    /*
     * NULL, or a file below the backing file: the name that resolve gets in place of the one that
     * the image stores. Needs backing_format, the format of that file, and ZQCOW2_COMMIT_KEEP. Not
     * for images with zones.
     */
    const char *backing_name;
};
#define ZQCOW2_COMMIT_OPTIONS_INIT \
    { \
        sizeof(struct zqcow2_commit_options), 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL \
    }

/*
 * Copies the data stored in the image itself (in `be`) to its backing file, then empties the image.
 * What the device of the image contains does not change, even if the call fails, is stopped or is
 * interrupted by a crash; another call then completes the work. The content of other images on the
 * same backing file may change.
 */
ZQCOW2_API int zqcow2_commit(struct zqcow2_backend *be, const struct zqcow2_commit_options *opt,
                             struct zqcow2_error *err);

#ifdef __cplusplus
}
#endif
#endif
