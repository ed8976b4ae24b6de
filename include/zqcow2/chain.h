/* SPDX-License-Identifier: MIT */
/*
 * What changes an image together with the files that it stands on. The image must not be open, and
 * the caller keeps its backend. See zqcow2-layers(7).
 */
#ifndef ZQCOW2_CHAIN_H
#define ZQCOW2_CHAIN_H

#include <zqcow2/zqcow2.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- another backing file ---- */

enum zqcow2_rebase_flag {
    ZQCOW2_REBASE_NAME_ONLY = 1 << 0 /* change the name, and copy nothing: for a backing file that
                                        has been moved. Of zones, write pointers are compared */
};

struct zqcow2_rebase_options {
    size_t size;
    uint32_t flags; /* zqcow2_rebase_flag */
    uint32_t reserved;
    const struct zqcow2_hooks *hooks; /* NULL: defaults */
    const char *backing_name;         /* stored as given; NULL: none, the image then stands alone */
    const char *backing_format;       /* "raw" or "qcow2", with backing_name */
    /* Opens the old backing files and the new ones, as open_options.resolve does. */
    int (*resolve)(void *arg, const char *name, const char *format, uint32_t depth,
                   struct zqcow2_backend **be, struct zqcow2_error *err);
    void *resolve_arg;
    /* Called now and then, in the calling thread; may be NULL. Not 0: stop, with -ECANCELED. */
    int (*progress)(void *arg, uint64_t done, uint64_t total);
    void *progress_arg;
};
#define ZQCOW2_REBASE_OPTIONS_INIT \
    { \
        sizeof(struct zqcow2_rebase_options), 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL \
    }

/*
 * Puts the image in `be` on another backing file. What it reads as stays the same: what the new
 * backing file does not hold is copied into the image first. If the call fails, is stopped or is
 * interrupted by a crash, the image still has its old backing file, and reads as before; some of
 * the data may have been copied. The caller keeps be. err may be NULL.
 */
ZQCOW2_API int zqcow2_rebase(struct zqcow2_backend *be, const struct zqcow2_rebase_options *opt,
                             struct zqcow2_error *err);

/* ---- into the backing file ---- */

enum zqcow2_commit_flag {
    ZQCOW2_COMMIT_KEEP = 1 << 0 /* the image keeps what it holds, too */
};

struct zqcow2_commit_options {
    size_t size;
    uint32_t flags; /* zqcow2_commit_flag */
    uint32_t reserved;
    const struct zqcow2_hooks *hooks; /* NULL: defaults */
    /*
     * Opens the backing file, with ZQCOW2_RESOLVE_WRITE added to depth, and those below it, as
     * open_options.resolve does.
     */
    int (*resolve)(void *arg, const char *name, const char *format, uint32_t depth,
                   struct zqcow2_backend **be, struct zqcow2_error *err);
    void *resolve_arg;
    const char *backing_format; /* "raw" or "qcow2": used if the image names no format */
    /* Called now and then, in the calling thread; may be NULL. Not 0: stop, with -ECANCELED. */
    int (*progress)(void *arg, uint64_t done, uint64_t total);
    void *progress_arg;
};
#define ZQCOW2_COMMIT_OPTIONS_INIT \
    { \
        sizeof(struct zqcow2_commit_options), 0, 0, NULL, NULL, NULL, NULL, NULL, NULL \
    }

/*
 * Writes what the image in `be` holds itself into its backing file, and empties the image, which
 * reads as before. If the call fails, is stopped or is interrupted by a crash, the image reads as
 * before, too; another call does the rest. Other images on the same backing file change what they
 * read as. The caller keeps be. err may be NULL.
 */
ZQCOW2_API int zqcow2_commit(struct zqcow2_backend *be, const struct zqcow2_commit_options *opt,
                             struct zqcow2_error *err);

#ifdef __cplusplus
}
#endif
#endif
