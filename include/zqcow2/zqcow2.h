/* SPDX-License-Identifier: MIT */
/*
 * libzqcow2 - zoned qcow2 images.  zqcow2(7) tells the whole story.
 *
 * Return values   >= 0 success; -4095..-1 a negated errno, passed on unchanged
 *                 from the backend or the system; <= -10000 an enum zqcow2_err.
 *                 -EINVAL is either: zqcow2_read(3) lists when the library says it.
 * Threads         An image may be used from any thread. A queue belongs to one
 *                 thread at a time. Callbacks run only inside zqcow2_queue_poll()
 *                 and zqcow2_queue_wait(), with no library lock held.
 *                 Nothing here may be used in the child after fork(2).
 * Units           Every offset and length is in bytes. I/O is in multiples of 512.
 * Growth          A struct whose first member is `size` may gain members at its
 *                 end. Fill it from its _INIT macro; a zero member means default.
 *                 Bytes beyond what the library knows must be zero (else -E2BIG).
 */
#ifndef ZQCOW2_ZQCOW2_H
#define ZQCOW2_ZQCOW2_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ZQCOW2_API __attribute__((visibility("default")))

/* ---- version: the build system reads these three lines ---- */

#define ZQCOW2_VERSION_MAJOR 0
#define ZQCOW2_VERSION_MINOR 1
#define ZQCOW2_VERSION_PATCH 0
#define ZQCOW2_VERSION \
    (ZQCOW2_VERSION_MAJOR * 1000000 + ZQCOW2_VERSION_MINOR * 1000 + ZQCOW2_VERSION_PATCH)

/* Version of the library that is loaded, as ZQCOW2_VERSION. */
ZQCOW2_API unsigned zqcow2_version(void);

/* ---- errors ---- */

enum zqcow2_err {
    ZQCOW2_EZONE_BOUNDARY = -10001, /* crosses a zone's end or its capacity */
    ZQCOW2_EZONE_FULL = -10002,     /* the zone is full */
    ZQCOW2_EZONE_RDONLY = -10003,   /* the zone is read-only */
    ZQCOW2_EZONE_OFFLINE = -10004,  /* the zone is offline */
    ZQCOW2_EZONE_WP = -10005,       /* the write is not at the write pointer */
    ZQCOW2_EZONE_OPEN = -10006,     /* too many open zones */
    ZQCOW2_EZONE_ACTIVE = -10007,   /* too many active zones */
    ZQCOW2_EZONE_STATE = -10008,    /* this zone action is not allowed now */
    ZQCOW2_ENOTQCOW2 = -10020,      /* not a qcow2 file */
    ZQCOW2_ENOTZONED = -10021,      /* a zone call on an image without zones */
    ZQCOW2_EFEATURE = -10022,       /* needs a feature that this library lacks */
    ZQCOW2_ECORRUPT = -10023,       /* metadata contradicts itself */
    ZQCOW2_EDEAD = -10024           /* a metadata write or flush failed earlier; reopen */
};

ZQCOW2_API const char *zqcow2_strerror(int rc); /* never NULL; static storage, any thread */
ZQCOW2_API int zqcow2_errno(int rc);            /* nearest positive errno; 0 for rc >= 0 */

/* Detail of a failed open, create or check. The text is for people and unstable. */
struct zqcow2_error {
    int code;
    char text[252];
};

/* ---- hooks: copied by every call that takes them ---- */

enum zqcow2_log_level {
    ZQCOW2_LOG_ERROR = 1,
    ZQCOW2_LOG_WARN,
    ZQCOW2_LOG_INFO,
    ZQCOW2_LOG_DEBUG
};

/*
 * alloc returns NULL when out of memory; align is a power of two. free gets the size that was
 * asked for. Both may be called from any thread that is inside a library call. log is called
 * without any library lock held and must not call back into the image.
 */
struct zqcow2_hooks {
    size_t size;
    void *ctx;
    void *(*alloc)(void *ctx, size_t align, size_t size); /* NULL with free: C library */
    void (*free)(void *ctx, void *ptr, size_t size);
    void (*log)(void *ctx, int level, const char *text);  /* NULL: silent */
    int log_level;                                        /* 0: ZQCOW2_LOG_WARN */
    int reserved;
};
#define ZQCOW2_HOOKS_INIT { sizeof(struct zqcow2_hooks), NULL, NULL, NULL, NULL, 0, 0 }

/* ---- image ---- */

struct zqcow2_backend; /* <zqcow2/backend.h> */
struct zqcow2_image;

/* Which revision of the zoned extension an image carries: zqcow2-format(5). */
enum zqcow2_layout {
    ZQCOW2_LAYOUT_NONE = 0, /* info: no zones; create: the default, 44 */
    ZQCOW2_LAYOUT_V3 = 3,   /* cannot be created */
    ZQCOW2_LAYOUT_V7 = 7,
    ZQCOW2_LAYOUT_44 = 44,
    ZQCOW2_LAYOUT_48B = 48,
    ZQCOW2_LAYOUT_56 = 56
};

enum zqcow2_open_flag {
    ZQCOW2_OPEN_RDWR = 1 << 0,
    ZQCOW2_OPEN_NOLOCK = 1 << 1,  /* take no lock on the file: the caller excludes other writers */
    /* With RDWR: set the feature bit of a zoned image that lacks it; else that is EFEATURE. */
    ZQCOW2_OPEN_UPGRADE = 1 << 2,
    ZQCOW2_OPEN_BORROW = 1 << 3   /* the backend stays the caller's, to close after the image */
};

struct zqcow2_open_options {
    size_t size;
    uint32_t flags;                   /* zqcow2_open_flag; 0: read-only, locked */
    uint32_t reserved;
    uint64_t cache_bytes;             /* metadata cache; 0: 8 MiB; raised to the minimum */
    uint64_t extent_bytes;            /* first piece allocated ahead in a zone; 0: 16 MiB */
    const struct zqcow2_hooks *hooks; /* NULL: defaults */
};
#define ZQCOW2_OPEN_OPTIONS_INIT { sizeof(struct zqcow2_open_options), 0, 0, 0, 0, NULL }

enum zqcow2_create_flag {
    ZQCOW2_CREATE_LAZY_REFCOUNTS = 1 << 0, /* plain images only */
    ZQCOW2_CREATE_FORCE = 1 << 1           /* overwrite a backend that is not empty */
};

struct zqcow2_create_options {
    size_t size;
    uint64_t virtual_size;       /* multiple of 512, 512 .. 2^62 */
    uint64_t zone_size;          /* power of two >= cluster_size; 0: a plain image without zones */
    uint64_t zone_capacity;      /* multiple of 512, <= zone_size; 0: zone_size */
    uint32_t conventional_zones; /* at the start of the device; fewer than all */
    uint32_t max_open_zones;     /* 0: no limit */
    uint32_t max_active_zones;   /* 0: no limit */
    uint32_t max_append_bytes;   /* 0: the layout's default; not storable in layout 44 */
    uint32_t cluster_size;       /* power of two, 512 .. 2 MiB; 0: 64 KiB */
    uint32_t refcount_bits;      /* 1, 2, 4 .. 64; 0: 16 */
    uint32_t layout;             /* zqcow2_layout; 0: 44 */
    uint32_t flags;              /* zqcow2_create_flag */
    const struct zqcow2_hooks *hooks;
};
#define ZQCOW2_CREATE_OPTIONS_INIT \
    { sizeof(struct zqcow2_create_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL }

enum zqcow2_info_flag {
    ZQCOW2_INFO_ZONED = 1 << 0,
    ZQCOW2_INFO_READ_ONLY = 1 << 1,
    ZQCOW2_INFO_DEAD = 1 << 2,           /* see ZQCOW2_EDEAD */
    ZQCOW2_INFO_NO_ZONED_BIT = 1 << 3,   /* zoned, but bit 5 is clear: opens read-only */
    ZQCOW2_INFO_LAZY_REFCOUNTS = 1 << 4,
    ZQCOW2_INFO_DIRTY = 1 << 5,          /* not closed cleanly; the next writable open mends it */
    ZQCOW2_INFO_SNAPSHOTS = 1 << 6,      /* internal snapshots present */
    ZQCOW2_INFO_OVER_ACTIVE = 1 << 7,    /* more active zones stored than max_active_zones */
    ZQCOW2_INFO_SIZE_CUT = 1 << 8,       /* the stored size is no multiple of 512: rounded down */
    ZQCOW2_INFO_EMPTY_BACKING = 1 << 9   /* a backing file without a name: there is none */
};

struct zqcow2_info {
    size_t size;
    uint64_t virtual_size, zone_size, zone_capacity;
    uint64_t file_size;                        /* of the image file; bytes */
    uint64_t incompatible_features, compatible_features, autoclear_features;
    uint32_t nr_zones, nr_conventional;
    uint32_t max_open_zones, max_active_zones; /* as stored; 0: no limit */
    uint32_t open_zones, active_zones;         /* now */
    uint32_t max_append_bytes;                 /* largest append; 0: not zoned */
    uint32_t block_size;                       /* 512 */
    uint32_t cluster_size, refcount_bits;
    uint32_t version;                          /* of qcow2: 2 or 3 */
    uint32_t layout;                           /* zqcow2_layout */
    uint32_t flags;                            /* zqcow2_info_flag */
    uint32_t compression_type;                 /* 0 zlib, 1 zstd */
};
#define ZQCOW2_INFO_INIT \
    { sizeof(struct zqcow2_info), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/*
 * Makes an empty image in `be`, which stays the caller's. -EEXIST if be holds any bytes and
 * ZQCOW2_CREATE_FORCE is not set; -EINVAL with a text that names the option for what cannot be
 * stored. The header is written last: an interrupted create leaves no valid image. err may be NULL.
 */
ZQCOW2_API int zqcow2_create(struct zqcow2_backend *be, const struct zqcow2_create_options *opt,
                             struct zqcow2_error *err);
/*
 * Opens the image in `be`. On success the image owns be (but see ZQCOW2_OPEN_BORROW); on failure
 * be stays the caller's. opt NULL: read-only with defaults. err may be NULL. Errors: ENOTQCOW2,
 * EFEATURE, ECORRUPT, -EROFS (backend cannot write), -EAGAIN (locked, by another program or
 * through another backend of this one), -EBUSY (be is in use by an image, a create or a check), and
 * the backend's own.
 */
ZQCOW2_API int zqcow2_open(struct zqcow2_backend *be, const struct zqcow2_open_options *opt,
                           struct zqcow2_image **img, struct zqcow2_error *err);
/*
 * -EBUSY while a queue is open or another call runs (nothing changes). Else flushes, marks the
 * image clean, and frees everything whatever the flush returned.
 */
ZQCOW2_API int zqcow2_close(struct zqcow2_image *img);
ZQCOW2_API int zqcow2_get_info(struct zqcow2_image *img, struct zqcow2_info *info);

/* ---- blocking I/O: each returns 0 or an error, never a short count ---- */

enum zqcow2_io_flag {
    ZQCOW2_FUA = 1 << 0 /* durable on return: this request and, in its zone, everything below it */
};

/* Anywhere, across zones. What lies at or beyond a write pointer reads as zeros. */
ZQCOW2_API int zqcow2_read(struct zqcow2_image *img, void *buf, size_t len, uint64_t off);
/* In a sequential zone `off` must be its write pointer. */
ZQCOW2_API int zqcow2_write(struct zqcow2_image *img, const void *buf, size_t len, uint64_t off,
                            unsigned flags);
/* *off: in, the zone's start; out, where the data went. All or nothing. */
ZQCOW2_API int zqcow2_append(struct zqcow2_image *img, const void *buf, size_t len, uint64_t *off,
                             unsigned flags);
/* As a write of zeros, without a buffer; in a sequential zone it advances the write pointer. */
ZQCOW2_API int zqcow2_write_zeroes(struct zqcow2_image *img, uint64_t len, uint64_t off,
                                   unsigned flags);
/* Gives whole clusters back; they read as zeros afterwards. EZONE_STATE in a sequential zone. */
ZQCOW2_API int zqcow2_discard(struct zqcow2_image *img, uint64_t len, uint64_t off, unsigned flags);
/* Makes durable everything that had completed before the call. */
ZQCOW2_API int zqcow2_flush(struct zqcow2_image *img);
/*
 * Waits until nothing is in flight on the image, then flushes: for pause, snapshot and migrate.
 * The caller keeps new requests away meanwhile. Completions of queues may still wait to be polled.
 */
ZQCOW2_API int zqcow2_drain(struct zqcow2_image *img);

/* ---- zones: ENOTZONED on an image without zones ---- */

enum zqcow2_zone_type { ZQCOW2_ZONE_CONVENTIONAL = 1, ZQCOW2_ZONE_SEQWRITE_REQ = 2 };

enum zqcow2_zone_state { /* the numbers of <linux/blkzoned.h> */
    ZQCOW2_ZONE_NOT_WP = 0x0,
    ZQCOW2_ZONE_EMPTY = 0x1,
    ZQCOW2_ZONE_IMP_OPEN = 0x2,
    ZQCOW2_ZONE_EXP_OPEN = 0x3,
    ZQCOW2_ZONE_CLOSED = 0x4,
    ZQCOW2_ZONE_RDONLY = 0xd,
    ZQCOW2_ZONE_FULL = 0xe,
    ZQCOW2_ZONE_OFFLINE = 0xf
};

struct zqcow2_zone { /* 64 bytes for ever: callers hold arrays of it */
    uint64_t start, length, capacity;
    uint64_t write_pointer; /* FULL: the end; conventional: start; RDONLY, OFFLINE: all ones */
    uint8_t type, state, reserved[30];
};

/*
 * *nr: in, room in zones[]; out, zones written. From the zone that holds off; off at or beyond
 * the device's end: -EINVAL. Shows committed write pointers. Never blocks on I/O.
 */
ZQCOW2_API int zqcow2_zone_report(struct zqcow2_image *img, uint64_t off, struct zqcow2_zone *zones,
                                  uint32_t *nr);
/*
 * Whole zones in [off, off + len); the last may be short. len = the whole device is the "all"
 * form, unless that is one zone. Over several zones each stops at the first failure (zqcow2_run()
 * tells which zone).
 * flags: ZQCOW2_FUA.
 */
ZQCOW2_API int zqcow2_zone_open(struct zqcow2_image *img, uint64_t off, uint64_t len,
                                unsigned flags);
ZQCOW2_API int zqcow2_zone_close(struct zqcow2_image *img, uint64_t off, uint64_t len,
                                 unsigned flags);
ZQCOW2_API int zqcow2_zone_finish(struct zqcow2_image *img, uint64_t off, uint64_t len,
                                  unsigned flags);
ZQCOW2_API int zqcow2_zone_reset(struct zqcow2_image *img, uint64_t off, uint64_t len,
                                 unsigned flags);
/*
 * For device models and fault tests: puts the zone that holds `off` into state RDONLY or OFFLINE,
 * in memory only; setting the same state again, or NOT_WP in any case, returns the zone to what its
 * write pointer says. Other states: -EINVAL. A conventional zone: EZONE_STATE. Waits for the zone's
 * writes.
 */
ZQCOW2_API int zqcow2_zone_set_state(struct zqcow2_image *img, uint64_t off, unsigned state);

/* ---- verify: be stays the caller's; the image must not be open elsewhere ---- */

enum zqcow2_check_flag {
    ZQCOW2_CHECK_REPAIR_LEAKS = 1 << 0, /* free clusters that nothing refers to */
    ZQCOW2_CHECK_REPAIR = 1 << 1,       /* also rebuild refcounts, COPIED; copy what is shared */
    ZQCOW2_CHECK_REPAIR_ALL = 1 << 2,   /* also unmap beyond write pointers, mend write pointers */
    ZQCOW2_CHECK_NOLOCK = 1 << 3
};

enum zqcow2_finding { ZQCOW2_FOUND_WARNING = 1, ZQCOW2_FOUND_LEAK, ZQCOW2_FOUND_CORRUPTION,
                      ZQCOW2_FOUND_REPAIRED };

struct zqcow2_check_options {
    size_t size;
    uint32_t flags;                   /* zqcow2_check_flag; 0: look only */
    uint32_t reserved;
    const struct zqcow2_hooks *hooks; /* NULL: defaults */
    /* Called for each finding (zqcow2_finding), in the calling thread. May be NULL. */
    void (*found)(void *arg, int kind, const char *text);
    void *arg;
};
#define ZQCOW2_CHECK_OPTIONS_INIT { sizeof(struct zqcow2_check_options), 0, 0, NULL, NULL, NULL }

struct zqcow2_check_result {
    size_t size;
    uint64_t corruptions, leaked_clusters, warnings;   /* found, fixed or not */
    uint64_t corruptions_fixed, leaks_fixed;
    uint64_t total_clusters, allocated_clusters;       /* of the device: all, mapped to data */
    uint64_t compressed_clusters, image_end_offset;
};
#define ZQCOW2_CHECK_RESULT_INIT \
    { sizeof(struct zqcow2_check_result), 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/* 0: the check ran, see *res; < 0: it could not (res is then incomplete). opt, err may be NULL. */
ZQCOW2_API int zqcow2_check(struct zqcow2_backend *be, const struct zqcow2_check_options *opt,
                            struct zqcow2_check_result *res, struct zqcow2_error *err);

#ifdef __cplusplus
}
#endif
#endif
