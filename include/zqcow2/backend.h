/* SPDX-License-Identifier: MIT */
/*
 * Backends: where an image's bytes lie. The library brings a file and a memory backend; a caller
 * makes his own from a table of callbacks. See zqcow2_backend_new(3).
 *
 * Contract. The library never issues overlapping writes at one time, unless its caller does where
 * there is no write pointer. Bytes that truncate() adds read as zeros. flush() makes durable every
 * write, zero, truncate and discard that had completed before it was called. Between two flushes a
 * crash may keep, lose, reorder or tear (at atomic_write) what was not flushed. Callbacks may be
 * called from any thread that is inside a library call, several at a time, never with a library
 * lock held. They return 0 (or what is said) or a negated errno, -4095 .. -1, which is passed on
 * unchanged; anything else counts as -EIO. A write either takes all bytes or fails.
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
    ZQCOW2_IO_DISCARD, /* the range's content no longer matters */
    ZQCOW2_IO_TRUNCATE /* offset: the new size; the library only grows, except in create */
};

struct zqcow2_io {     /* owned by the library; grows at its end */
    uint32_t kind, iovcnt;
    uint64_t offset, length;
    const struct iovec *iov; /* READ, WRITE: `length` bytes in all */
    void *backend[4];        /* the backend's own, free to use until done */
};

enum zqcow2_backend_cap {
    ZQCOW2_CAP_READ_ONLY = 1 << 0 /* writing would fail: a writable open is refused with -EROFS */
};

struct zqcow2_limits {
    size_t size;
    uint32_t io_align, buf_align;  /* of offsets and lengths, of memory: powers of two <= 4096;
                                      0: 1. Above 1, buf_align also wants the length of every
                                      element to be a multiple of io_align. The library pads and
                                      bounces. */
    uint32_t atomic_write;         /* aligned write that a crash cannot tear; 0: 512 */
    uint32_t max_transfer;         /* bytes in one I/O of any kind, >= 512 and >= io_align;
                                      0: no limit */
    uint32_t max_iov;              /* elements in one I/O, none of them empty; 0: 1024 */
    uint32_t caps;                 /* zqcow2_backend_cap */
};

/* lock(): which kind of user asks. */
enum zqcow2_lock { ZQCOW2_LOCK_NONE, ZQCOW2_LOCK_SHARED, ZQCOW2_LOCK_EXCLUSIVE };

struct zqcow2_backend_ops {
    size_t size;
    const char *name;
    void (*close)(void *self); /* may be NULL */
    int (*length)(void *self, uint64_t *bytes);
    /* All or error; zeros for what lies beyond the end. */
    int (*readv)(void *self, const struct iovec *iov, int cnt, uint64_t off);
    int (*writev)(void *self, const struct iovec *iov, int cnt, uint64_t off); /* NULL: read-only */
    int (*flush)(void *self);
    /* any of these may be NULL; without truncate an image cannot be written */
    int (*limits)(void *self, struct zqcow2_limits *out); /* out is zeroed but for size */
    int (*truncate)(void *self, uint64_t bytes);
    int (*discard)(void *self, uint64_t off, uint64_t len); /* gives space back; may fail */
    int (*zero)(void *self, uint64_t off, uint64_t len);    /* cheap zeroing, or -EOPNOTSUPP */
    int (*lock)(void *self, int mode);                      /* zqcow2_lock; -EAGAIN: refused */
    /* Forget cached content (called before close of an image whose flush failed). */
    void (*invalidate)(void *self);
    /*
     * Asynchronous backends. submit 0: taken; else done is never called. -EOPNOTSUPP: use the
     * blocking function of that kind, which then blocks who submits or polls: one that serves an
     * event loop takes every kind. Another error is the I/O's result, and for metadata the image's
     * end: a full ring keeps a list. NULL: blocking backend. A backend with submit completes by way
     * of zqcow2_io_done(), from submit() itself, from poll() or from a thread of its own.
     */
    int (*submit)(void *self, struct zqcow2_io *io);
    void (*kick)(void *self);                 /* after a batch of submits */
    void (*wake)(void *self);                 /* ends another thread's poll(), or the next one if
                                                 none runs; needed with poll */
    int (*poll)(void *self, int timeout_ms);  /* -1: no limit. NULL: has threads of its own */
    int (*fd)(void *self);                    /* readable when poll() has work; needed with poll */
    /*
     * Zeros that take their space now, so that no later write there fails for want of it. Blocking,
     * and rare: new tables. NULL, -EOPNOTSUPP: zeros are written.
     */
    int (*allocate)(void *self, uint64_t off, uint64_t len);
    /*
     * Optional: the first range at or behind off that may hold something else than zeros; begin ==
     * end: there is none before the end of the file. -EOPNOTSUPP: not known. Keeps check from
     * reading the holes of a sparse file.
     */
    int (*data)(void *self, uint64_t off, uint64_t *begin, uint64_t *end);
};

/*
 * self is handed to every callback; its close() is called by zqcow2_backend_close(), not on failure
 * here.
 */
ZQCOW2_API int zqcow2_backend_new(const struct zqcow2_backend_ops *ops, void *self,
                                  const struct zqcow2_hooks *hooks, struct zqcow2_backend **be);
ZQCOW2_API void zqcow2_backend_close(struct zqcow2_backend *be); /* NULL is allowed */
/*
 * Reports an accepted io as finished: ret 0 or a negated errno. Any thread; exactly once per io.
 * An error means that the request can no longer reach the file.
 */
ZQCOW2_API void zqcow2_io_done(struct zqcow2_io *io, int ret);

enum zqcow2_file_flag {
    ZQCOW2_FILE_RDWR = 1 << 0,
    ZQCOW2_FILE_CREATE = 1 << 1,    /* with RDWR: make a file that is missing, 0666 & ~umask */
    ZQCOW2_FILE_EXCLUSIVE = 1 << 2, /* with CREATE: -EEXIST if it is there */
    ZQCOW2_FILE_DIRECT = 1 << 3     /* O_DIRECT */
};

/* flags: zqcow2_file_flag. hooks may be NULL. Locks are taken when an image is opened, not here. */
ZQCOW2_API int zqcow2_file_open(const char *path, unsigned flags, const struct zqcow2_hooks *hooks,
                                struct zqcow2_backend **be);
/*
 * fd belongs to the backend on success, and is closed with it; one of 0, 1 and 2 at once, for a
 * copy. Access mode and O_DIRECT are read from it. Locks are the backend's own where the file can
 * be opened anew.
 */
ZQCOW2_API int zqcow2_file_from_fd(int fd, const struct zqcow2_hooks *hooks,
                                   struct zqcow2_backend **be);
/* `bytes` of zeros; grows by truncate. */
ZQCOW2_API int zqcow2_mem_open(uint64_t bytes, const struct zqcow2_hooks *hooks,
                               struct zqcow2_backend **be);
/*
 * As zqcow2_file_open, through io_uring: requests run side by side without threads of the library.
 * -ENOSYS: the kernel does not offer io_uring here, or is older than Linux 5.11, or the library was
 * built without it. Completions may end epoll_wait(2) and its like with EINTR, without a signal.
 */
ZQCOW2_API int zqcow2_uring_open(const char *path, unsigned flags,
                                 const struct zqcow2_hooks *hooks, struct zqcow2_backend **be);
/* As zqcow2_file_from_fd, through io_uring. */
ZQCOW2_API int zqcow2_uring_from_fd(int fd, const struct zqcow2_hooks *hooks,
                                    struct zqcow2_backend **be);
/*
 * Makes a blocking backend asynchronous: n threads (1 .. 256) call it, so that it serves n requests
 * at a time. Owns inner on success only. Its threads take no signals.
 */
ZQCOW2_API int zqcow2_threads_wrap(struct zqcow2_backend *inner, unsigned n,
                                   const struct zqcow2_hooks *hooks, struct zqcow2_backend **be);
/*
 * Plain access to a backend's bytes, blocking, for programs that prepare or inspect image files.
 * Not while an image is open on it for writing.
 */
ZQCOW2_API int zqcow2_backend_length(struct zqcow2_backend *be, uint64_t *bytes);
ZQCOW2_API int zqcow2_backend_read(struct zqcow2_backend *be, void *buf, size_t len, uint64_t off);
ZQCOW2_API int zqcow2_backend_write(struct zqcow2_backend *be, const void *buf, size_t len,
                                    uint64_t off);

#ifdef __cplusplus
}
#endif
#endif
