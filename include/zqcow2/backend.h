/* SPDX-License-Identifier: MIT */
/*
 * Backends: where the bytes of an image are stored. The library provides file, io_uring and memory
 * backends; a caller can implement others as a table of callbacks. See zqcow2_backend_new(3).
 *
 * Contract
 *   - The library never has two overlapping writes in flight, unless its caller issues such writes
 *     outside sequential zones.
 *   - Bytes that truncate() adds read as zeros.
 *   - flush() makes durable every write, zero, allocate, truncate and discard that completed before
 *     flush() was called. A crash may keep, lose, reorder or tear (at multiples of atomic_write)
 *     anything that was not flushed.
 *   - Callbacks may run in any thread that is inside a library call, and in the threads that the
 *     library creates (see zqcow2(7)), several at a time. Exception: only one thread at a time
 *     calls poll(). No library lock is held during a callback.
 *   - Callbacks return 0, or a negated errno from -4095 to -1, which is passed on unchanged unless
 *     a comment below says otherwise. (fd() returns a descriptor.) Any other value counts as -EIO.
 *     -ENOSPC, -EDQUOT or -EFBIG from flush() of an open image also counts as -EIO. Any failed
 *     flush() makes that image dead.
 *   - A write either writes all bytes or fails.
 *   - With a buf_align of 1 and an io_align of at most 512, the buffers of the caller's requests
 *     reach the backend as they are, whole or in parts, if each of their iovecs consists of whole
 *     sectors of 512 bytes. The library then reads the data of a write only if ZQCOW2_COMPRESS is
 *     set. Without that flag, the address of the data may therefore be a handle that only the
 *     backend understands. The buffer of a read must be memory: the library does not look at what
 *     has been read, but fills some parts itself, such as holes.
 */
#ifndef ZQCOW2_BACKEND_H
#define ZQCOW2_BACKEND_H

#include <zqcow2/zqcow2.h>

#ifdef __cplusplus
extern "C" {
#endif

enum zqcow2_io_kind {
    ZQCOW2_IO_READ,
    ZQCOW2_IO_WRITE,
    ZQCOW2_IO_FLUSH,
    ZQCOW2_IO_ZERO,    /* the range reads as zeros afterwards; may punch a hole */
    ZQCOW2_IO_DISCARD, /* the content of the range is no longer needed */
    ZQCOW2_IO_TRUNCATE /* offset: the new size. The library may cut off an unused end of the file
                          when it frees space, or closes or repairs an image. It ignores an error of
                          that truncate. */
};

/*
 * One I/O. Its owner is the library, or a backend that made it for zqcow2_backend_submit(). A later
 * release may add kinds of I/O, and members for these kinds at the end of this struct. The library
 * reads such members only for the new kinds.
 */
struct zqcow2_io {
    uint32_t kind, iovcnt;
    uint64_t offset, length;
    const struct iovec *iov; /* READ, WRITE: `length` bytes in all */
    void *backend[4];        /* for the backend's use until the I/O is done */
    /* Set by the owner; only zqcow2_io_done() calls it. */
    void (*done)(struct zqcow2_io *io, int ret);
};

enum zqcow2_backend_cap {
    ZQCOW2_CAP_READ_ONLY = 1 << 0, /* no writes: a writable open returns -EROFS */
    /*
     * For asynchronous backends: the blocking callbacks may run in any number of threads while
     * other I/O is in flight. A thread in a blocking call of the library, such as zqcow2_write(),
     * then runs these callbacks itself. Without this flag, the thread submits an I/O and sleeps
     * until it is done. Blocking callbacks then run only if submit() refuses an I/O with
     * -EOPNOTSUPP, if there is no zqcow2_io_kind for the I/O (length, allocate, data), and in calls
     * that change snapshots, bitmaps or the size, or compact an image. For a request of a queue,
     * the library always calls submit() first.
     */
    ZQCOW2_CAP_BLOCKING_CALLS = 1 << 1
};

struct zqcow2_limits {
    size_t size;
    uint32_t io_align, buf_align; /* the alignment of offsets and lengths, and that of memory:
                                     powers of two <= 4096; 0 means 1. If buf_align is above 1,
                                     the length of every iovec must also be a multiple of
                                     io_align. The library pads and copies as needed. */
    uint32_t atomic_write;        /* size of an aligned write that a crash cannot tear; 0: 512 */
    uint32_t max_transfer;        /* bytes per I/O of any kind, >= 512 and >= io_align;
                                     0: no limit */
    uint32_t max_iov;             /* iovecs per I/O; 0: 1024. The library never passes an
                                     empty iovec. */
    uint32_t caps;                /* zqcow2_backend_cap */
};

/* The lock that the library requests from lock(). */
enum zqcow2_lock { ZQCOW2_LOCK_NONE, ZQCOW2_LOCK_SHARED, ZQCOW2_LOCK_EXCLUSIVE };

struct zqcow2_backend_ops {
    size_t size;
    const char *name;
    void (*close)(void *self); /* may be NULL */
    int (*length)(void *self, uint64_t *bytes);
    /* Reads all bytes or fails. Bytes beyond the end read as zeros. */
    int (*readv)(void *self, const struct iovec *iov, int cnt, uint64_t off);
    int (*writev)(void *self, const struct iovec *iov, int cnt, uint64_t off); /* NULL: read-only */
    int (*flush)(void *self); /* may be NULL if writev is NULL */
    /* Any of the following may be NULL. Without truncate an image cannot be written. */
    int (*limits)(void *self, struct zqcow2_limits *out); /* on entry *out is all zeros
                                                             except size */
    int (*truncate)(void *self, uint64_t bytes);
    int (*discard)(void *self, uint64_t off, uint64_t len); /* frees space; may fail */
    int (*zero)(void *self, uint64_t off, uint64_t len);    /* cheap zeroing, or -EOPNOTSUPP */
    int (*lock)(void *self, int mode);                      /* zqcow2_lock; -EAGAIN: refused */
    /* Drops cached content. Called before the library closes an image whose flush failed. */
    void (*invalidate)(void *self);
    /*
     * For asynchronous backends. submit NULL: the backend is blocking.
     * submit() returns 0 if it accepts the I/O. The backend then completes the I/O with
     * zqcow2_io_done(), called from submit() itself, from kick(), from poll() or from a thread of
     * the backend.
     * If submit() returns an error, the backend must not call zqcow2_io_done() for that I/O.
     * -EOPNOTSUPP: the library calls the blocking callback for that kind of I/O instead. That call
     * blocks the thread that submits or polls, so a backend for event loops should accept every
     * kind.
     * Any other error is the result of the I/O. If the I/O was a flush or a write of metadata in
     * use (see zqcow2(7)), the error makes the image dead (EDEAD), unless that write failed for
     * lack of space. A backend that has no room for another I/O should therefore queue it instead
     * of refusing it.
     * An accepted I/O that ends with -EOPNOTSUPP has failed, like one with any other error. A
     * backend that cannot zero a range must therefore refuse the I/O in submit(), or write zeros.
     */
    int (*submit)(void *self, struct zqcow2_io *io);
    void (*kick)(void *self);                /* after a batch of submits */
    void (*wake)(void *self);                /* ends a poll() in another thread, or the next
                                                poll() if none is running; required with poll */
    int (*poll)(void *self, int timeout_ms); /* -1: no limit. NULL: the backend completes I/O
                                                from its own threads */
    int (*fd)(void *self);                   /* returns a descriptor that is readable when poll()
                                                has work; required with poll */
    /*
     * Makes a range read as zeros and allocates its space, so that no later write there fails with
     * -ENOSPC. This is always a blocking call. The library uses it for preallocation in
     * zqcow2_create(). If submit is NULL, the library also uses it for preallocation in
     * zqcow2_resize(), for new tables of 16 KiB or more, and for zeros that keep their space
     * (ZQCOW2_NO_UNMAP). NULL or -EOPNOTSUPP: the library writes the zeros itself. Exception:
     * zqcow2_create() with ZQCOW2_PREALLOCATE_FALLOC then fails with -EOPNOTSUPP.
     */
    int (*allocate)(void *self, uint64_t off, uint64_t len);
    /*
     * Finds the first range at or after off that may contain bytes other than zero. *begin == *end
     * means that there is none before the end of the file. -EOPNOTSUPP: unknown. With this
     * callback, a check does not read the holes of a sparse file.
     */
    int (*data)(void *self, uint64_t off, uint64_t *begin, uint64_t *end);
};

/*
 * Makes a backend from ops; self is passed to every callback. zqcow2_backend_close() calls close().
 * If zqcow2_backend_new() itself fails, it does not call close().
 */
ZQCOW2_API int zqcow2_backend_new(const struct zqcow2_backend_ops *ops, void *self,
                                  const struct zqcow2_hooks *hooks, struct zqcow2_backend **be);
ZQCOW2_API void zqcow2_backend_close(struct zqcow2_backend *be); /* NULL is allowed */
/*
 * Completes an accepted I/O; ret is 0 or a negated errno. The backend must call this exactly once,
 * from any thread, for each I/O that it has accepted and has not passed on to another backend. Once
 * the backend has reported an error, that I/O must no longer change the file.
 */
ZQCOW2_API void zqcow2_io_done(struct zqcow2_io *io, int ret);

enum zqcow2_file_flag {
    ZQCOW2_FILE_RDWR = 1 << 0,
    ZQCOW2_FILE_CREATE = 1 << 1,    /* with RDWR: create a missing file, mode 0666 & ~umask */
    ZQCOW2_FILE_EXCLUSIVE = 1 << 2, /* with CREATE: -EEXIST if the file exists */
    ZQCOW2_FILE_DIRECT = 1 << 3,    /* O_DIRECT */
    /*
     * For images larger than memory: what is read or written goes through the page cache but does
     * not stay there (RWF_DONTCACHE). No effect with DIRECT, before Linux 6.14, or on a file system
     * that does not support it.
     */
    ZQCOW2_FILE_DONTCACHE = 1 << 4
};

/*
 * flags: zqcow2_file_flag. hooks may be NULL. The locks are taken when an image is opened, not by
 * this call.
 */
ZQCOW2_API int zqcow2_file_open(const char *path, unsigned flags, const struct zqcow2_hooks *hooks,
                                struct zqcow2_backend **be);
/*
 * On success the backend owns fd and closes it when the backend is closed. If fd is 0, 1 or 2, the
 * backend uses a duplicate instead and closes fd at once. The access mode and O_DIRECT are those of
 * fd. If the library can reopen the file, this backend alone holds the locks on it. Otherwise every
 * copy of fd shares the locks, even a copy in another process.
 */
ZQCOW2_API int zqcow2_file_from_fd(int fd, const struct zqcow2_hooks *hooks,
                                   struct zqcow2_backend **be);
/* A backend in memory. Its initial content is `bytes` zeros; truncate() can enlarge it. */
ZQCOW2_API int zqcow2_mem_open(uint64_t bytes, const struct zqcow2_hooks *hooks,
                               struct zqcow2_backend **be);
/*
 * Like zqcow2_file_open(), but through io_uring: requests run concurrently without library threads.
 * -ENOSYS: the kernel does not allow io_uring or is older than Linux 5.11, or the library was built
 * without it. A completion may interrupt epoll_wait(2) and similar calls with EINTR, although no
 * signal arrived.
 * One kick() or poll() passes at most 32 requests and 1 MiB to the kernel, which may copy them at
 * once; what is left makes fd() readable for the next call. Reads and writes above 1 MiB are
 * carried out by the kernel's workers. No call waits for I/O, unless a sandbox closes the ring or a
 * block device is used beyond the length that it had so far.
 */
ZQCOW2_API int zqcow2_uring_open(const char *path, unsigned flags, const struct zqcow2_hooks *hooks,
                                 struct zqcow2_backend **be);
/* Like zqcow2_file_from_fd(), but through io_uring. */
ZQCOW2_API int zqcow2_uring_from_fd(int fd, const struct zqcow2_hooks *hooks,
                                    struct zqcow2_backend **be);
/*
 * Registers n areas of memory (0 .. 64, each of 1 byte to 1 GiB) with the kernel, in place of those
 * registered before; be must be an io_uring backend. The kernel pins their pages. Afterwards a
 * request with one element, all of it in one area, uses these pages without looking them up; any
 * other request is carried out as before. n = 0 unregisters; so does zqcow2_backend_close().
 * An area must stay mapped until then: the kernel goes on using its old pages, even if something
 * else is mapped there. The call is allowed in any thread.
 * -EINVAL, or -EBUSY while a request is in flight: nothing has changed. After any other error no
 * area is registered, and requests work without: -EOPNOTSUPP: before Linux 5.13, or memory of a
 * file that cannot be pinned; -EFAULT: not mapped; -ENOMEM: above RLIMIT_MEMLOCK; other errors of
 * io_uring_register(2).
 */
ZQCOW2_API int zqcow2_uring_register(struct zqcow2_backend *be, const struct iovec *areas,
                                     unsigned n);
/*
 * Makes a blocking backend asynchronous: n threads (1 .. 256) call inner, so up to n requests can
 * run at once. Blocking calls run in the thread of the caller and do not count towards n. On
 * success the new backend owns inner. The threads block all signals. -ENOMEM: also if a thread
 * cannot be started.
 */
ZQCOW2_API int zqcow2_threads_wrap(struct zqcow2_backend *inner, unsigned n,
                                   const struct zqcow2_hooks *hooks, struct zqcow2_backend **be);

/* ---- backing files by name: open_options.resolve for files ---- */

struct zqcow2_resolver;

struct zqcow2_resolver_options {
    size_t size;
    const char *root;                 /* a folder: no file outside it is opened; NULL: no limit */
    const struct zqcow2_hooks *hooks; /* for the resolver and its backends; NULL: defaults */
    /*
     * The path of the image's data file. It replaces the name that the image stores, if it stores
     * one. If root is set, the file must be inside root. NULL: the stored name is used.
     */
    const char *data_file;
};
#define ZQCOW2_RESOLVER_OPTIONS_INIT \
    { \
        sizeof(struct zqcow2_resolver_options), NULL, NULL, NULL \
    }

/*
 * image: the path of the image whose backing files will be opened; the file need not exist yet.
 * Errors: -EINVAL, -ENOMEM, and any error in accessing image or root.
 */
ZQCOW2_API int zqcow2_resolver_new(const char *image, const struct zqcow2_resolver_options *opt,
                                   struct zqcow2_resolver **r);
ZQCOW2_API void zqcow2_resolver_free(struct zqcow2_resolver *r); /* NULL is allowed */
/*
 * In the options of a call, set resolve to this function, and resolve_arg to the resolver. A
 * relative name is relative to the folder of the file that contains the name. The function opens
 * regular files only. It refuses a file that is already part of the chain, names that begin with a
 * protocol, such as "nbd:" or "json:", and a depth above 64.
 */
ZQCOW2_API int zqcow2_resolve_file(void *arg, const char *name, const char *format, uint32_t depth,
                                   struct zqcow2_backend **be, struct zqcow2_error *err);
/*
 * Returns the path of the file that was opened at that depth, or NULL if none was; depth 0 is the
 * image. With ZQCOW2_RESOLVE_DATA_FILE added to depth, returns the path of that image's data file.
 */
ZQCOW2_API const char *zqcow2_resolver_path(const struct zqcow2_resolver *r, uint32_t depth);

/*
 * Blocking access to the bytes of a backend, for programs that prepare or inspect image files.
 * Must not be used while an image in the backend is open for writing.
 */
ZQCOW2_API int zqcow2_backend_length(struct zqcow2_backend *be, uint64_t *bytes);
ZQCOW2_API int zqcow2_backend_read(struct zqcow2_backend *be, void *buf, size_t len, uint64_t off);
ZQCOW2_API int zqcow2_backend_write(struct zqcow2_backend *be, const void *buf, size_t len,
                                    uint64_t off);

/*
 * Stacking: functions for a backend that is built on another one, the inner backend.
 * zqcow2_backend_readv() and each function after it call one callback of the inner backend. See
 * zqcow2_backend_claim(3).
 *   - Offsets, lengths and iovecs must be within the limits of the inner backend, else -EINVAL.
 *   - If the inner backend lacks that callback, the function returns -EOPNOTSUPP. Exceptions: flush
 *     and lock return 0; wake, kick and invalidate do nothing.
 *   - On a read-only backend, every function that changes the file returns -EROFS, even if the
 *     callback is missing.
 *   - A function returns the result of the callback. A result that is neither 0 nor a negated errno
 *     becomes -EIO. Exception: zqcow2_backend_fd() returns the descriptor.
 *   - Any number of threads may call these functions at the same time, but only one may call
 *     zqcow2_backend_poll(). The caller must not hold a lock that its own done() or wake() takes.
 *     The functions take no lock themselves.
 */
/*
 * Reserves a backend for the caller: until it is released, no image in it can be opened, created or
 * checked. -EBUSY: the backend is in use. A claimed backend may be closed without a release.
 */
ZQCOW2_API int zqcow2_backend_claim(struct zqcow2_backend *be);
ZQCOW2_API void zqcow2_backend_release(struct zqcow2_backend *be);
/* The table of a backend, to see which callbacks it has. Valid until the backend is closed. */
ZQCOW2_API const struct zqcow2_backend_ops *zqcow2_backend_table(const struct zqcow2_backend *be);
/* The limits with defaults filled in: only max_transfer and caps may be 0. Set out->size first. */
ZQCOW2_API int zqcow2_backend_limits(const struct zqcow2_backend *be, struct zqcow2_limits *out);
ZQCOW2_API int zqcow2_backend_readv(struct zqcow2_backend *be, const struct iovec *iov, int cnt,
                                    uint64_t off);
ZQCOW2_API int zqcow2_backend_writev(struct zqcow2_backend *be, const struct iovec *iov, int cnt,
                                     uint64_t off);
ZQCOW2_API int zqcow2_backend_flush(struct zqcow2_backend *be);
ZQCOW2_API int zqcow2_backend_truncate(struct zqcow2_backend *be, uint64_t bytes);
ZQCOW2_API int zqcow2_backend_zero(struct zqcow2_backend *be, uint64_t off, uint64_t len);
ZQCOW2_API int zqcow2_backend_discard(struct zqcow2_backend *be, uint64_t off, uint64_t len);
ZQCOW2_API int zqcow2_backend_allocate(struct zqcow2_backend *be, uint64_t off, uint64_t len);
ZQCOW2_API int zqcow2_backend_data(struct zqcow2_backend *be, uint64_t off, uint64_t *begin,
                                   uint64_t *end);
ZQCOW2_API int zqcow2_backend_lock(struct zqcow2_backend *be, int mode); /* zqcow2_lock */
ZQCOW2_API void zqcow2_backend_invalidate(struct zqcow2_backend *be);
/*
 * Starts an I/O. If io belongs to the caller, all its members must be zero except kind, iovcnt,
 * offset, length, iov and done. The caller may also pass on an io that its own submit() received;
 * that io then completes without involving the caller.
 * If the result is 0, the I/O is accepted. io and iov must then stay unchanged until done(io, ret)
 * is called. That happens exactly once, from inside this call, kick or poll, or from a thread of
 * the inner backend. done() may submit and kick again, but must not block, poll or close.
 * If the result is not 0, the I/O is not accepted and done() is not called. -EOPNOTSUPP: use the
 * blocking call of that kind.
 */
ZQCOW2_API int zqcow2_backend_submit(struct zqcow2_backend *be, struct zqcow2_io *io);
ZQCOW2_API void zqcow2_backend_kick(struct zqcow2_backend *be); /* after a batch of submits */
ZQCOW2_API int zqcow2_backend_poll(struct zqcow2_backend *be, int timeout_ms); /* one thread at a
                                                                                  time */
ZQCOW2_API void zqcow2_backend_wake(struct zqcow2_backend *be);
ZQCOW2_API int zqcow2_backend_fd(struct zqcow2_backend *be);

#ifdef __cplusplus
}
#endif
#endif
