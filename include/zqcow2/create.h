/* SPDX-License-Identifier: MIT */
/* Creating an image. <zqcow2/zqcow2.h> includes this header. */
#ifndef ZQCOW2_CREATE_H
#define ZQCOW2_CREATE_H

#include <zqcow2/zqcow2.h>

#ifdef __cplusplus
extern "C" {
#endif

enum zqcow2_create_flag {
    ZQCOW2_CREATE_LAZY_REFCOUNTS = 1 << 0, /* only without zones */
    ZQCOW2_CREATE_FORCE = 1 << 1,          /* overwrite a backend that is not empty; also empty the
                                              data file first */
    ZQCOW2_CREATE_EXTENDED_L2 = 1 << 2,    /* use subclusters; needs clusters of 16 KiB or more */
    ZQCOW2_CREATE_DATA_FILE_RAW = 1 << 3,  /* the data file can be used without the image; only
                                              without zones and without a backing file */
    ZQCOW2_CREATE_ZSTD = 1 << 4,           /* compressed clusters use zstd instead of zlib */
    ZQCOW2_CREATE_EMPTY = 1 << 5           /* virtual_size is 0: the device has no bytes; only
                                              without zones */
};

/* What is allocated before the first write. It does not affect what the device reads as. */
enum zqcow2_preallocation {
    ZQCOW2_PREALLOCATE_OFF = 0,
    ZQCOW2_PREALLOCATE_METADATA = 1, /* clusters and tables for the whole device; the file has their
                                        full length, but is sparse */
    ZQCOW2_PREALLOCATE_FALLOC = 2,   /* also space on the host, without writing to it */
    ZQCOW2_PREALLOCATE_FULL = 3      /* also space on the host, by writing zeros */
};

struct zqcow2_create_options {
    size_t size;
    uint64_t virtual_size;       /* multiple of 512, 512 .. 2^62; or see CREATE_EMPTY */
    uint64_t zone_size;          /* power of two >= cluster_size; 0: no zones */
    uint64_t zone_capacity;      /* multiple of 512, <= zone_size; 0: zone_size */
    uint32_t conventional_zones; /* how many, at the start of the device; at least one zone must
                                    be sequential */
    uint32_t max_open_zones;     /* 0: no limit */
    uint32_t max_active_zones;   /* 0: no limit */
    uint32_t max_append_bytes;   /* multiple of 512, < zone_capacity - 512; 0: the layout's default.
                                    Must be 0 for layout 44, which cannot store it */
    uint32_t cluster_size;       /* power of two, 512 .. 2 MiB; 0: 64 KiB */
    uint32_t refcount_bits;      /* a power of two, 1 .. 64; 0: 16 */
    uint32_t layout;             /* zqcow2_layout; 0: 44 */
    uint32_t flags;              /* zqcow2_create_flag */
    const struct zqcow2_hooks *hooks;
    const char *backing_name;   /* stored as given; NULL: no backing file */
    const char *backing_format; /* "raw" or "qcow2". Required with backing_name, unless resolve
                                   is set and the backing file has zones */
    /*
     * Opens the backing file, as open_options.resolve does; NULL: the backing file is not opened.
     * If it is opened and virtual_size is 0, the new image takes the size of the backing file. If
     * the backing file has zones, the new image inherits all of them as they are. It also inherits
     * the cluster size, the layout and the limits, except those that are set here. resolve is
     * required for a zoned image with a backing file and for an image with a data file.
     */
    int (*resolve)(void *arg, const char *name, const char *format, uint32_t depth,
                   struct zqcow2_backend **be, struct zqcow2_error *err);
    void *resolve_arg;
    /*
     * The name of the file that will hold the data of the device: 1 to 1023 bytes, stored as given.
     * NULL: the image file. A missing data file is created; one that is shorter than virtual_size
     * (here at most 2^56) is extended to it. ZQCOW2_CREATE_FORCE empties the file first; otherwise
     * its content stays. The device shows that content only with ZQCOW2_CREATE_DATA_FILE_RAW.
     */
    const char *data_file;
    uint32_t descriptor_extension; /* bytes per zone (NVMe ZNS): a multiple of 64, <= 16320; at most
                                      64 MiB for all zones; 0: none, or as in the backing file */
    uint32_t preallocation;        /* zqcow2_preallocation; see zqcow2_open(3) */
    /*
     * Called at intervals in the calling thread while space is preallocated, with the bytes done
     * and the total. If it returns nonzero, the call stops and returns -ECANCELED. May be NULL.
     */
    int (*progress)(void *arg, uint64_t done, uint64_t total);
    void *progress_arg;
};
#define ZQCOW2_CREATE_OPTIONS_INIT \
    { \
        sizeof(struct zqcow2_create_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL, \
            NULL, NULL, NULL, 0, 0, NULL, NULL \
    }
/*
 * Creates a new image in `be`, which the caller keeps. -EEXIST: be is not empty and
 * ZQCOW2_CREATE_FORCE is not set. -EINVAL: an option has a value that cannot be stored; the text
 * names the option. -EOPNOTSUPP: the backend cannot allocate space (ZQCOW2_PREALLOCATE_FALLOC). The
 * header is written last, so an interrupted create leaves no valid image.
 */
ZQCOW2_API int zqcow2_create(struct zqcow2_backend *be, const struct zqcow2_create_options *opt,
                             struct zqcow2_error *err);

#ifdef __cplusplus
}
#endif
#endif
