/* SPDX-License-Identifier: MIT */
/*
 * libzqcow2 - zoned qcow2 images.  zqcow2(7) is the guide.
 *
 * Return values   >= 0 success; -4095..-1 a negated errno; <= -10000 an enum
 *                 zqcow2_err. An errno of the backend or the system is passed on
 *                 unchanged, except where zqcow2_strerror(3) says otherwise. The
 *                 library itself also returns some errnos; each manual page lists
 *                 them. Comments often omit the prefix ZQCOW2_ of errors, and the
 *                 prefixes of states and flags. EFEATURE, for example, stands for
 *                 ZQCOW2_EFEATURE, a value that is already negative.
 * Threads         Any number of threads may use an image at the same time. Only
 *                 one thread at a time may use a queue. Completion callbacks run
 *                 only inside zqcow2_queue_poll() and zqcow2_queue_wait(), with no
 *                 library lock held. After fork(2) the child must not use any
 *                 object of the library.
 * Units           Every offset and length is in bytes, unless a comment says
 *                 otherwise. The offset and length of an I/O request must be
 *                 multiples of 512, or of 4096 if zqcow2_open_options sets
 *                 block_size to 4096. Exception: for block status, always
 *                 multiples of 512.
 * Growth          A struct whose first member is a size_t `size` may gain members
 *                 at its end. Initialise it with its _INIT macro if it has one;
 *                 a zero member selects the default. In a struct that the caller
 *                 fills in, bytes beyond the members that the library knows must
 *                 be zero; otherwise the call returns -E2BIG. In a struct that
 *                 the library fills in, it sets such bytes to zero.
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
#define ZQCOW2_VERSION_MINOR 2
#define ZQCOW2_VERSION_PATCH 0
#define ZQCOW2_VERSION \
    (ZQCOW2_VERSION_MAJOR * 1000000 + ZQCOW2_VERSION_MINOR * 1000 + ZQCOW2_VERSION_PATCH)

/* The version of the loaded library, encoded like ZQCOW2_VERSION. */
ZQCOW2_API unsigned zqcow2_version(void);

/* ---- errors ---- */

enum zqcow2_err {
    ZQCOW2_EZONE_BOUNDARY = -10001, /* crosses the end or the capacity of a zone */
    ZQCOW2_EZONE_FULL = -10002,     /* the zone is full */
    ZQCOW2_EZONE_RDONLY = -10003,   /* the zone is read-only */
    ZQCOW2_EZONE_OFFLINE = -10004,  /* the zone is offline */
    ZQCOW2_EZONE_WP = -10005,       /* the write is not at the write pointer */
    ZQCOW2_EZONE_OPEN = -10006,     /* too many open zones */
    ZQCOW2_EZONE_ACTIVE = -10007,   /* too many active zones */
    ZQCOW2_EZONE_STATE = -10008,    /* the zone's state or type does not allow this */
    ZQCOW2_ENOTQCOW2 = -10020,      /* not a qcow2 file */
    ZQCOW2_ENOTZONED = -10021,      /* a zone operation on an image without zones */
    ZQCOW2_EFEATURE = -10022,       /* needs a feature that the library or this image lacks */
    ZQCOW2_ECORRUPT = -10023,       /* metadata contradicts itself */
    ZQCOW2_EDEAD = -10024,          /* the image accepts no more writes; see zqcow2_strerror(3) */
    ZQCOW2_EINACTIVE = -10025       /* the image is inactive: see <zqcow2/handover.h> */
};

ZQCOW2_API const char *zqcow2_strerror(int rc); /* never NULL; static storage, any thread */
ZQCOW2_API int zqcow2_errno(int rc);            /* nearest positive errno; 0 for rc >= 0 */

/* Details of a failure. The text is for people and may change. In every call, err may be NULL. */
struct zqcow2_error {
    int code;
    char text[252];
};

/* ---- hooks: every call that takes hooks copies them ---- */

enum zqcow2_log_level { ZQCOW2_LOG_ERROR = 1, ZQCOW2_LOG_WARN, ZQCOW2_LOG_INFO, ZQCOW2_LOG_DEBUG };

/*
 * alloc returns NULL when out of memory; align is a power of two. free receives the size that was
 * requested. Both may be called from any thread that is inside a library call. log is called
 * without any library lock held and must not call back into the image.
 */
struct zqcow2_hooks {
    size_t size;
    void *ctx;
    void *(*alloc)(void *ctx, size_t align, size_t size); /* alloc and free both NULL:
                                                             those of the C library */
    void (*free)(void *ctx, void *ptr, size_t size);
    void (*log)(void *ctx, int level, const char *text); /* NULL: silent */
    int log_level;                                       /* 0: ZQCOW2_LOG_WARN */
    int reserved;
};
#define ZQCOW2_HOOKS_INIT \
    { \
        sizeof(struct zqcow2_hooks), NULL, NULL, NULL, NULL, 0, 0 \
    }

/* ---- image ---- */

struct zqcow2_backend; /* <zqcow2/backend.h> */
struct zqcow2_image;

/* The revision of the zoned extension that an image uses. See zqcow2-format(5). */
enum zqcow2_layout {
    ZQCOW2_LAYOUT_NONE = 0, /* in info: no zones; in create: that of a zoned backing file,
                                otherwise 44 */
    ZQCOW2_LAYOUT_V3 = 3,   /* cannot be created */
    ZQCOW2_LAYOUT_V7 = 7,
    ZQCOW2_LAYOUT_44 = 44,
    ZQCOW2_LAYOUT_48B = 48,
    ZQCOW2_LAYOUT_56 = 56
};

enum zqcow2_open_flag {
    ZQCOW2_OPEN_RDWR = 1 << 0,
    ZQCOW2_OPEN_NOLOCK = 1 << 1, /* take no locks: the caller must exclude other writers */
    /* With RDWR: if a zoned image lacks its feature bit, set it instead of returning EFEATURE. */
    ZQCOW2_OPEN_UPGRADE = 1 << 2,
    ZQCOW2_OPEN_BORROW = 1 << 3, /* the caller keeps the backend and closes it after the image */
    /*
     * Only without RDWR: opens neither the backing file nor the data file. Reading data that only
     * these files hold then fails with EFEATURE; everything else works.
     */
    ZQCOW2_OPEN_NO_BACKING = 1 << 4,
    /* Takes no lock and reads only the header. See zqcow2_activate() in <zqcow2/handover.h>. */
    ZQCOW2_OPEN_INACTIVE = 1 << 5,
    ZQCOW2_OPEN_ID_FIRST = 1 << 6 /* snapshot is an ID, or a name if no snapshot has that ID */
};

/* Which rules zone operations follow where standards differ. See zqcow2_zone_reset(3). */
enum zqcow2_rules {
    ZQCOW2_RULES_LINUX = 0, /* those of <linux/blkzoned.h> devices: ZBC, ZAC, virtio, null_blk */
    ZQCOW2_RULES_ZNS = 1    /* NVMe Zoned Namespaces */
};

/* Flags added to the depth passed to resolve. Depth 0 is the image itself. */
#define ZQCOW2_RESOLVE_DATA_FILE 0x80000000u /* open the image's data file; format is "raw" */
#define ZQCOW2_RESOLVE_WRITE     0x40000000u /* open the file for writing */
#define ZQCOW2_RESOLVE_CREATE    0x20000000u /* only with the other two: create a missing file */

struct zqcow2_open_options {
    size_t size;
    uint32_t flags;                   /* zqcow2_open_flag; 0: read-only, locked */
    uint32_t rules;                   /* zqcow2_rules */
    uint64_t cache_bytes;             /* size of the metadata cache; 0: 8 MiB. A value below
                                         the minimum is raised to it. A cache of less than
                                         1 MiB may grow to 1 MiB while a request needs it */
    uint64_t extent_bytes;            /* how much space the library allocates for a zone when
                                         it is first written; 0: 16 MiB */
    const struct zqcow2_hooks *hooks; /* NULL: defaults */
    /*
     * Opens a backing file. The library calls resolve for the backing file of the image, then for
     * the backing file of that file, and so on; see zqcow2-layers(7). name is as stored in the
     * image, format is "raw" or "qcow2", and depth is 1 for the backing file of the image itself.
     * The callback stores a backend in *be (for reading only, unless ZQCOW2_RESOLVE_WRITE is added
     * to depth) and returns 0, or it returns an error, preferably with a text in *err (err may be
     * NULL). The library closes the backend with the image, or when the open fails. It also calls
     * resolve for data files, with ZQCOW2_RESOLVE_DATA_FILE added to depth; name is "" if the image
     * stores none. If resolve is NULL, an image with a backing file or a data file is refused,
     * unless ZQCOW2_OPEN_NO_BACKING is set. With ZQCOW2_OPEN_INACTIVE, zqcow2_activate() is the
     * call that refuses it. zqcow2_resolve_file() in <zqcow2/backend.h> is a ready-made resolve for
     * files.
     */
    int (*resolve)(void *arg, const char *name, const char *format, uint32_t depth,
                   struct zqcow2_backend **be, struct zqcow2_error *err);
    void *resolve_arg;
    const char *backing_format; /* "raw" or "qcow2": used if the image names a backing file
                                   but no format; NULL: such an image is refused */
    uint32_t block_size;        /* 512 or 4096; 0: 512. The unit of I/O requests: see Units
                                   above */
    uint32_t reserved;
    const char *snapshot; /* only without RDWR: opens the first snapshot with this name or, if there
                             is none, with this ID (-ENOENT: neither). NULL: the current disk */
};
#define ZQCOW2_OPEN_OPTIONS_INIT \
    { \
        sizeof(struct zqcow2_open_options), 0, 0, 0, 0, NULL, NULL, NULL, NULL, 0, 0, NULL \
    }

enum zqcow2_info_flag {
    ZQCOW2_INFO_ZONED = 1 << 0,
    ZQCOW2_INFO_READ_ONLY = 1 << 1,
    ZQCOW2_INFO_DEAD = 1 << 2,         /* see ZQCOW2_EDEAD */
    ZQCOW2_INFO_NO_ZONED_BIT = 1 << 3, /* zoned, but feature bit 5 is clear: read-only */
    ZQCOW2_INFO_LAZY_REFCOUNTS = 1 << 4,
    ZQCOW2_INFO_DIRTY = 1 << 5,       /* not closed cleanly; the next writable open cleans it up */
    ZQCOW2_INFO_SNAPSHOTS = 1 << 6,   /* internal snapshots present */
    ZQCOW2_INFO_OVER_ACTIVE = 1 << 7, /* stores more active zones than max_active_zones */
    ZQCOW2_INFO_SIZE_CUT = 1 << 8,    /* the stored size is not a multiple of 512: rounded down */
    ZQCOW2_INFO_EMPTY_BACKING = 1 << 9, /* names a backing file, but the name is empty: ignored */
    ZQCOW2_INFO_BACKING = 1 << 10,      /* has a backing file: see zqcow2_get_backing() */
    ZQCOW2_INFO_STATES = 1 << 11,       /* stores zone states: see ZQCOW2_ZONE_PERSIST */
    ZQCOW2_INFO_STATES_VOID = 1 << 12,  /* another program made the stored zone states invalid */
    ZQCOW2_INFO_INACTIVE = 1 << 13      /* inactive: the other members may be out of date */
};

struct zqcow2_info {
    size_t size;
    uint64_t virtual_size, zone_size, zone_capacity;
    uint64_t file_size; /* size of the image file; may be too low after a write inside the
                           last cluster of the file */
    uint64_t incompatible_features, compatible_features, autoclear_features;
    uint32_t nr_zones, nr_conventional;
    uint32_t max_open_zones, max_active_zones; /* as stored; 0: no limit */
    uint32_t open_zones, active_zones;         /* now */
    uint32_t max_append_bytes;                 /* largest append; 0: not zoned */
    uint32_t block_size;                       /* as opened: 512 or 4096 */
    uint32_t cluster_size, refcount_bits;
    uint32_t version;              /* of qcow2: 2 or 3 */
    uint32_t layout;               /* zqcow2_layout */
    uint32_t flags;                /* zqcow2_info_flag */
    uint32_t compression_type;     /* 0 zlib, 1 zstd */
    uint32_t descriptor_extension; /* bytes per zone; 0: zones have no descriptor extensions */
    uint32_t reserved;
};
#define ZQCOW2_INFO_INIT \
    { \
        sizeof(struct zqcow2_info), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, \
            0, 0 \
    }

/*
 * Opens the image in `be`. On success the image owns be, unless ZQCOW2_OPEN_BORROW is set; on
 * failure the caller keeps it. opt NULL: read-only, with defaults. Errors: -EINVAL (an option is
 * wrong), ENOTQCOW2, EFEATURE, ECORRUPT, -EROFS (the backend cannot write), -EAGAIN (another
 * program, or another backend of this program, has locked the file), -EBUSY (be is claimed, or an
 * image, a create or a check is using it), -ENOENT (no such snapshot), and others listed in
 * zqcow2_open(3).
 */
ZQCOW2_API int zqcow2_open(struct zqcow2_backend *be, const struct zqcow2_open_options *opt,
                           struct zqcow2_image **img, struct zqcow2_error *err);
/*
 * Closes the image. -EBUSY: a queue is open or another call is running; the image stays open. In
 * every other case, the call flushes the image and, if that succeeds, marks it as cleanly
 * closed. If some clusters could not be freed, the image is not marked, and the next writable open
 * frees these clusters. Finally the call releases everything that belongs to the image, even after
 * a failure, and returns the result.
 */
ZQCOW2_API int zqcow2_close(struct zqcow2_image *img);
ZQCOW2_API int zqcow2_get_info(struct zqcow2_image *img, struct zqcow2_info *info);

/* The names that an image stores for its backing file and its data file. */
struct zqcow2_backing {
    size_t size;
    char format[16];      /* "": the image names none */
    char name[1024];      /* "": no backing file */
    char data_file[1024]; /* "": the image itself holds the data, or the name is not stored */
};
#define ZQCOW2_BACKING_INIT \
    { \
        sizeof(struct zqcow2_backing), "", "", "" \
    }

ZQCOW2_API int zqcow2_get_backing(struct zqcow2_image *img, struct zqcow2_backing *backing);

/* ---- blocking I/O: each call returns 0 or an error, never a short count ---- */

enum zqcow2_io_flag {
    ZQCOW2_FUA = 1 << 0, /* the request completes only once it and everything at lower offsets in
                            its zone are durable; see zqcow2_read(3) */
    /*
     * Only for a write of whole clusters (the last cluster of the device may be short): stores each
     * cluster compressed if that saves space. -EOPNOTSUPP: the image has a data file.
     */
    ZQCOW2_COMPRESS = 1 << 1,
    /* Only for write_zeroes: keeps the space that the range occupies. See zqcow2_read(3). */
    ZQCOW2_NO_UNMAP = 1 << 2,
    /*
     * Only for write_zeroes: if zeros would have to be written to the file, the call changes
     * nothing and returns -EOPNOTSUPP.
     */
    ZQCOW2_NO_FALLBACK = 1 << 3
};

/*
 * A read, write, append, write_zeroes or discard that fails for lack of memory has changed nothing.
 * The same is true if it fails for lack of space, with these exceptions:
 *   - With ZQCOW2_FUA, the change may be in effect but not yet durable.
 *   - Outside sequential zones, each 512-byte sector that is overwritten in place may hold its
 *     old or its new content.
 *   - Outside sequential zones, a call that changes more than 1 MiB of L2 tables (8 GiB of data
 *     with clusters of 64 KiB), or more than cache_bytes if that is larger, may have changed the
 *     first part of its range.
 * If the library cannot read the mapping, the call fails with the error of the backend. Outside
 * sequential zones, a call that would change more than cache_bytes of L2 tables may then have
 * changed the first part of its range.
 */

/* May cross zones. Bytes at or beyond the write pointer of a sequential zone read as zeros. */
ZQCOW2_API int zqcow2_read(struct zqcow2_image *img, void *buf, size_t len, uint64_t off);
/* In a sequential zone `off` must be at the write pointer. */
ZQCOW2_API int zqcow2_write(struct zqcow2_image *img, const void *buf, size_t len, uint64_t off,
                            unsigned flags);
/* On entry *off is the start of the zone; on success it is the offset of the data. Writes all bytes
 * or none. */
ZQCOW2_API int zqcow2_append(struct zqcow2_image *img, const void *buf, size_t len, uint64_t *off,
                             unsigned flags);
/*
 * Writes zeros without a buffer. In a sequential zone this advances the write pointer. Outside
 * sequential zones, whole clusters are only marked as zeros, and without ZQCOW2_NO_UNMAP they are
 * freed. A later write there may then fail for lack of space.
 */
ZQCOW2_API int zqcow2_write_zeroes(struct zqcow2_image *img, uint64_t len, uint64_t off,
                                   unsigned flags);
/* Frees the whole clusters in the range; they then read as zeros. EZONE_STATE: sequential zone. */
ZQCOW2_API int zqcow2_discard(struct zqcow2_image *img, uint64_t len, uint64_t off, unsigned flags);
/* Makes durable every request that completed before the call. */
ZQCOW2_API int zqcow2_flush(struct zqcow2_image *img);
/*
 * Waits until no request is in flight on the image, then flushes. Use it before a pause, a
 * migration or a snapshot of the host's storage. The caller must not submit requests meanwhile.
 * Queues may still hold completions that have not been delivered.
 */
ZQCOW2_API int zqcow2_drain(struct zqcow2_image *img);

enum zqcow2_resize_flag {
    ZQCOW2_RESIZE_SHRINK = 1 << 0,  /* allow a smaller size: the data beyond it is lost */
    ZQCOW2_RESIZE_DISCARD = 1 << 1, /* with SHRINK: first reset the zones to be cut off */
    /*
     * These preallocate the added part; see zqcow2_preallocation. At most one of the three, and
     * only with a larger size.
     */
    ZQCOW2_RESIZE_METADATA = 1 << 2,
    ZQCOW2_RESIZE_FALLOC = 1 << 3,
    ZQCOW2_RESIZE_FULL = 1 << 4
};

/*
 * Changes the size of the device. If the image has zones, whole zones are added or cut off: see
 * zqcow2_resize(3). Added space reads as zeros, whatever the backing file contains there; new zones
 * are EMPTY. The call waits until the requests in progress are done. Requests submitted during the
 * call begin when it returns, and see the new size. The new size is durable on return. After a
 * power loss during the call, the device has either the old size and all of its content, or the new
 * size. Exception: with ZQCOW2_RESIZE_DISCARD, after a power loss or a failed call, the device may
 * have its old size although zones to be cut off are already EMPTY. EZONE_STATE: a zone that would
 * be cut off is not EMPTY. For the other errors see zqcow2_resize(3). After EDEAD or an error of
 * the backend, the size may have changed: reopen the image.
 */
ZQCOW2_API int zqcow2_resize(struct zqcow2_image *img, uint64_t size, uint32_t flags,
                             struct zqcow2_error *err);

/* ---- block status: what the image holds, without reading it ---- */

enum zqcow2_block_kind {
    ZQCOW2_BLOCK_UNALLOCATED, /* in no image of the chain, or at or beyond a sequential
                                 zone's write pointer: zeros */
    ZQCOW2_BLOCK_ZERO,        /* marked as zeros */
    ZQCOW2_BLOCK_DATA,
    ZQCOW2_BLOCK_COMPRESSED
};

struct zqcow2_extent {
    size_t size;
    uint32_t kind;   /* zqcow2_block_kind */
    uint32_t depth;  /* where the bytes are; 0: in this image, 1: in its backing file, ... */
    uint64_t length; /* number of bytes of that kind, at most the requested length */
    uint64_t host;   /* offset of the first byte in its file; UINT64_MAX: none, or compressed */
};
#define ZQCOW2_EXTENT_INIT \
    { \
        sizeof(struct zqcow2_extent), 0, 0, 0, 0 \
    }

/*
 * Reports the kind of the byte at `off`, and how many of the `len` bytes from there on are alike.
 * Bytes are alike if they are of the same kind and, if they are stored in a file, contiguous in it.
 * A long run may be reported in parts. `off` and `len` must be multiples of 512, whatever the
 * block size. The call does not wait for other requests. It reads at most one part of one L2 table
 * of each image in the chain.
 */
ZQCOW2_API int zqcow2_block_status(struct zqcow2_image *img, uint64_t off, uint64_t len,
                                   struct zqcow2_extent *status);

/* ---- zones: ENOTZONED on an image without zones ---- */

enum zqcow2_zone_type { ZQCOW2_ZONE_CONVENTIONAL = 1, ZQCOW2_ZONE_SEQWRITE_REQ = 2 };

/* Same values as in <linux/blkzoned.h>. */
enum zqcow2_zone_state {
    ZQCOW2_ZONE_NOT_WP = 0x0,
    ZQCOW2_ZONE_EMPTY = 0x1,
    ZQCOW2_ZONE_IMP_OPEN = 0x2,
    ZQCOW2_ZONE_EXP_OPEN = 0x3,
    ZQCOW2_ZONE_CLOSED = 0x4,
    ZQCOW2_ZONE_RDONLY = 0xd,
    ZQCOW2_ZONE_FULL = 0xe,
    ZQCOW2_ZONE_OFFLINE = 0xf
};
/* Added to a state in zqcow2_zone_set_state(): the image also stores the state. */
#define ZQCOW2_ZONE_PERSIST 0x100u

enum zqcow2_zone_attribute { ZQCOW2_ZONE_DESCRIBED = 1 << 0 /* has a descriptor extension */ };

struct zqcow2_zone { /* 64 bytes, fixed by the ABI: callers hold arrays of it */
    uint64_t start, length, capacity;
    uint64_t write_pointer; /* FULL: the end of the zone, start + length; conventional: start;
                               RDONLY, OFFLINE: all ones */
    uint8_t type, state, attributes, reserved[29]; /* attributes: zqcow2_zone_attribute */
};

/*
 * Reports zones, beginning with the zone that contains `off`. On entry *nr is the number of
 * elements in zones[]; on success it is the number written. -EINVAL: `off` is at or beyond the end
 * of the device. The write pointers of sequential zones cover all data that has been written,
 * durable or not. The call never blocks on I/O.
 */
ZQCOW2_API int zqcow2_zone_report(struct zqcow2_image *img, uint64_t off, struct zqcow2_zone *zones,
                                  uint32_t *nr);
/*
 * Zone operations. [off, off + len) is a range of whole zones; the last zone of a device may be
 * short. If the range is the whole device and the device has more than one zone, the call is the
 * "all" form of the operation: see zqcow2_zone_reset(3). A call for several zones stops at the
 * first failure; zqcow2_run() reports which zone failed.
 * flags: 0 or ZQCOW2_FUA.
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
 * For device models and fault tests: forces the zone that contains `off` into state RDONLY or
 * OFFLINE. The call waits for writes in progress in the zone.
 *
 * Without ZQCOW2_ZONE_PERSIST, the state changes in memory only, so the call also works on an image
 * opened read-only. Setting a state that is already forced is a toggle: it removes the forced
 * state, and the zone again has the state that follows from its write pointer. NOT_WP does the
 * same; it has no effect on a zone whose state is not forced. A stored state stays stored.
 *
 * With ZQCOW2_ZONE_PERSIST, the image also stores the state, which is durable when the call
 * returns. There is no toggle: setting the same state again keeps it. NOT_WP removes the forced and
 * the stored state. Under ZQCOW2_RULES_ZNS, CLOSED is allowed, too: it closes a zone to which
 * nothing was written, and makes it active. If another program writes the image, the stored states
 * become invalid.
 *
 * -EINVAL: any other state. EZONE_STATE: a conventional zone; or, for CLOSED, a zone that holds
 * data or whose state is forced. EZONE_ACTIVE: too many active zones.
 */
ZQCOW2_API int zqcow2_zone_set_state(struct zqcow2_image *img, uint64_t off, unsigned state);
/*
 * Stores a descriptor extension (NVMe ZNS) for the EMPTY zone that contains `off`, and makes the
 * zone CLOSED; both are durable on return. The zone keeps the extension until a reset;
 * zqcow2_zone_set_descriptor(3) lists other cases in which it is lost. -EINVAL: len is not
 * info.descriptor_extension, or the rules are not ZNS. EZONE_STATE: not EMPTY. EZONE_ACTIVE: too
 * many active zones.
 */
ZQCOW2_API int zqcow2_zone_set_descriptor(struct zqcow2_image *img, uint64_t off, const void *data,
                                          size_t len);
/*
 * Reads the extensions of *nr zones, info.descriptor_extension bytes each. off and *nr have the
 * meaning that they have in zqcow2_zone_report(). A zone without an extension yields zeros.
 * -EINVAL: `off` is at or beyond the end of the device, *nr is 0, or the image has no extensions.
 */
ZQCOW2_API int zqcow2_zone_get_descriptors(struct zqcow2_image *img, uint64_t off, void *buf,
                                           uint32_t *nr);

/* ---- internal snapshots ---- */

struct zqcow2_snapshot {
    size_t size;
    const char *id, *name;
    uint64_t disk_size;           /* size of the device in bytes; 0: not stored */
    uint64_t vm_state_size;       /* size of the stored state of a virtual machine in bytes */
    uint64_t vm_clock_nsec;       /* run time of the virtual machine */
    uint64_t icount;              /* instructions that it had executed; UINT64_MAX: not stored */
    uint32_t date_sec, date_nsec; /* since 1970-01-01 UTC */
};
#define ZQCOW2_SNAPSHOT_INIT \
    { \
        sizeof(struct zqcow2_snapshot), NULL, NULL, 0, 0, 0, 0, 0, 0 \
    }

/*
 * zqcow2_snapshot_take() and zqcow2_snapshot_delete() wait for the requests in progress;
 * zqcow2_snapshot_apply() returns -EBUSY if there are any. Requests submitted during a call begin
 * when it returns. A snapshot contains everything that was acknowledged before the call. The effect
 * is durable on return. After a power loss during a call, its effect is complete or absent. A call
 * that fails with EDEAD or an error of the backend may have taken effect: reopen the image. For
 * delete and apply, `name` selects the first snapshot with this name or, if there is none, the one
 * with this ID. -ENOENT: neither.
 */

/*
 * Takes a snapshot. Set name (1 to 255 bytes) and, as needed, date_sec, date_nsec, vm_clock_nsec;
 * the other members except size must be 0. -EEXIST: a snapshot already has this string as its name
 * or its ID. -EOVERFLOW: a refcount is at its maximum. -EFBIG: there are 65,536 snapshots, or a
 * table would be too large. EFEATURE: the image has a data file, or it has zones and its header has
 * no room for what a snapshot adds to it. See zqcow2_snapshot_take(3).
 */
ZQCOW2_API int zqcow2_snapshot_take(struct zqcow2_image *img,
                                    const struct zqcow2_snapshot *snapshot,
                                    struct zqcow2_error *err);
/* Deletes a snapshot, and frees the space that nothing else uses. */
ZQCOW2_API int zqcow2_snapshot_delete(struct zqcow2_image *img, const char *name,
                                      struct zqcow2_error *err);
/*
 * Restores the content, the size and the write pointers that the disk had when the snapshot was
 * taken. Afterwards, no zone is open or has a descriptor extension. The replaced content is lost
 * unless a snapshot holds it. Requests submitted during the call access the restored disk. -EINVAL:
 * the size of that disk is not a multiple of the block size. EZONE_ACTIVE: too many of its zones
 * would be active. EFEATURE: a bitmap cannot be kept. ECORRUPT: the image has zones, but the
 * snapshot has no valid write pointers. -ENOENT and -EBUSY: see above. -EOVERFLOW, -EFBIG and
 * EFEATURE as for zqcow2_snapshot_take().
 */
ZQCOW2_API int zqcow2_snapshot_apply(struct zqcow2_image *img, const char *name,
                                     struct zqcow2_error *err);
/* *snapshot is valid until the callback returns. */
typedef void zqcow2_snapshot_fn(void *arg, const struct zqcow2_snapshot *snapshot);
/* Calls each() for each snapshot in the order of the snapshot table, in the calling thread. */
ZQCOW2_API int zqcow2_snapshot_list(struct zqcow2_image *img, zqcow2_snapshot_fn *each, void *arg,
                                    struct zqcow2_error *err);

/* ---- check: the caller keeps be; the image must not be open ---- */

enum zqcow2_check_flag {
    ZQCOW2_CHECK_REPAIR_LEAKS = 1 << 0, /* release unreferenced clusters */
    ZQCOW2_CHECK_REPAIR = 1 << 1,       /* also rebuild refcounts and COPIED flags; copy shared
                                           clusters */
    ZQCOW2_CHECK_REPAIR_ALL = 1 << 2,   /* also repair write pointers and unmap clusters
                                           beyond them */
    ZQCOW2_CHECK_NOLOCK = 1 << 3
};

enum zqcow2_finding {
    ZQCOW2_FOUND_WARNING = 1,
    ZQCOW2_FOUND_LEAK,
    ZQCOW2_FOUND_CORRUPTION,
    ZQCOW2_FOUND_REPAIRED
};

struct zqcow2_check_options {
    size_t size;
    uint32_t flags; /* zqcow2_check_flag; 0: repair nothing */
    uint32_t reserved;
    const struct zqcow2_hooks *hooks; /* NULL: defaults */
    /* Called for each finding (zqcow2_finding), in the calling thread. May be NULL. */
    void (*found)(void *arg, int kind, const char *text);
    void *arg;
    /*
     * Opens the backing file of an image with zones, as open_options.resolve does. The check then
     * compares the write pointers of the image with those of the backing file. resolve also opens
     * a data file, whose length is checked. NULL: neither file is opened.
     */
    int (*resolve)(void *arg, const char *name, const char *format, uint32_t depth,
                   struct zqcow2_backend **be, struct zqcow2_error *err);
    void *resolve_arg;
};
#define ZQCOW2_CHECK_OPTIONS_INIT \
    { \
        sizeof(struct zqcow2_check_options), 0, 0, NULL, NULL, NULL, NULL, NULL \
    }

struct zqcow2_check_result {
    size_t size;
    uint64_t corruptions, leaked_clusters, warnings; /* all found, whether fixed or not */
    uint64_t corruptions_fixed, leaks_fixed;
    uint64_t total_clusters, allocated_clusters; /* clusters of the device, and how many
                                                    of these are mapped to data */
    uint64_t compressed_clusters, image_end_offset;
    uint64_t fragmented_clusters; /* of allocated_clusters; see zqcow2_check(3) */
};
#define ZQCOW2_CHECK_RESULT_INIT \
    { \
        sizeof(struct zqcow2_check_result), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/*
 * Returns 0 if the check ran to completion; *res then has the results. Otherwise returns an error
 * and leaves *res unchanged. opt and res may be NULL.
 */
ZQCOW2_API int zqcow2_check(struct zqcow2_backend *be, const struct zqcow2_check_options *opt,
                            struct zqcow2_check_result *res, struct zqcow2_error *err);

#ifdef __cplusplus
}
#endif

#include <zqcow2/create.h>
#endif
