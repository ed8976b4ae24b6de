/* SPDX-License-Identifier: MIT */
/*
 * Preloaded: makes the file that ZQ_ZONED names a zoned block device. ZQ_ZONES has its zone size,
 * capacity and number of conventional zones, in MiB, and optionally the block size. Pointers and
 * conditions are in the file that has .zones behind its name. ZQ_FAIL is "CALL:N": the Nth such
 * call fails with EIO, or, if N is 0, the report of a zone is no good; CALL is one of report,
 * reset, close, finish, write and flush. ZQ_LOG names a file that gets a line for each change.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/blkzoned.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define SECTOR 512u

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t zone_size, capacity, conventional, block;
static int state_fd = -1;

static void *next(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

static int real_fstat(int fd, struct stat *st)
{
    int (*fn)(int, struct stat *) = NULL;

    *(void **)&fn = next("fstat");
    return fn(fd, st);
}

static int real_stat(const char *path, struct stat *st)
{
    int (*fn)(const char *, struct stat *) = NULL;

    *(void **)&fn = next("stat");
    return fn(path, st);
}

static bool set_up(void)
{
    const char *name = getenv("ZQ_ZONED"), *shape = getenv("ZQ_ZONES");
    char path[512];

    if (!name || !shape)
        return false;
    if (state_fd >= 0)
        return true;
    block = SECTOR;
    sscanf(shape, "%lu,%lu,%lu,%lu", &zone_size, &capacity, &conventional, &block);
    zone_size <<= 20;
    capacity <<= 20;
    snprintf(path, sizeof(path), "%s.zones", name);
    state_fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    return state_fd >= 0;
}

static bool is_it(const struct stat *st)
{
    struct stat it;

    return set_up() && real_stat(getenv("ZQ_ZONED"), &it) == 0 && it.st_ino == st->st_ino &&
           it.st_dev == st->st_dev;
}

static bool is_fd(int fd)
{
    struct stat st;

    return real_fstat(fd, &st) == 0 && is_it(&st);
}

static bool fails(const char *call)
{
    static int calls;
    const char *plan = getenv("ZQ_FAIL");
    size_t n = strlen(call);

    if (!plan || strncmp(plan, call, n) != 0 || plan[n] != ':' || ++calls != atoi(plan + n + 1))
        return false;
    errno = EIO;
    return true;
}

static void note(const char *what, uint64_t off, uint64_t len)
{
    const char *name = getenv("ZQ_LOG");
    FILE *f = name ? fopen(name, "a") : NULL;

    if (!f)
        return;
    fprintf(f, "%s %lu %lu\n", what, off, len);
    fclose(f);
}

/* ---- zones: the pointer, relative to the start, and the condition ---- */

struct state {
    uint64_t wp, cond;
};

static struct state get(uint64_t zone)
{
    struct state s;

    if (pread(state_fd, &s, sizeof(s), (off_t)(zone * sizeof(s))) != sizeof(s) || !s.cond)
        s = (struct state){0, BLK_ZONE_COND_EMPTY};
    return s;
}

/* Of a zone that has failed: from read-only ones data can still be read. */
static bool refuses(uint64_t zone, uint64_t from)
{
    if (get(zone).cond != BLK_ZONE_COND_OFFLINE && get(zone).cond != from)
        return false;
    errno = EIO;
    return true;
}

static ssize_t real_pwrite(int fd, const void *buf, size_t len, off_t off)
{
    ssize_t (*fn)(int, const void *, size_t, off_t) = NULL;

    *(void **)&fn = next("pwrite");
    return fn(fd, buf, len, off);
}

static void put(uint64_t zone, struct state s)
{
    if (real_pwrite(state_fd, &s, sizeof(s), (off_t)(zone * sizeof(s))) != sizeof(s))
        abort();
}

static uint64_t size_of(int fd)
{
    struct stat st;

    return real_fstat(fd, &st) == 0 ? (uint64_t)st.st_size : 0;
}

static int report(int fd, struct blk_zone_report *r)
{
    uint64_t zones = (size_of(fd) + zone_size - 1) / zone_size, n = 0;

    if (fails("report"))
        return -1;
    for (uint64_t i = r->sector * SECTOR / zone_size; i < zones && n < r->nr_zones; i++, n++) {
        struct state s = get(i);
        struct blk_zone *z = &r->zones[n];

        memset(z, 0, sizeof(*z));
        z->start = i * zone_size / SECTOR;
        z->len = zone_size / SECTOR;
        z->capacity = (i < conventional ? zone_size : capacity) / SECTOR;
        z->type = i < conventional ? BLK_ZONE_TYPE_CONVENTIONAL : BLK_ZONE_TYPE_SEQWRITE_REQ;
        z->cond = (uint8_t)s.cond;
        if (i < conventional && s.cond == BLK_ZONE_COND_EMPTY)
            z->cond = BLK_ZONE_COND_NOT_WP;
        z->wp = z->start + s.wp / SECTOR;
        if (s.cond == BLK_ZONE_COND_READONLY || s.cond == BLK_ZONE_COND_OFFLINE)
            z->wp = UINT64_MAX;
        if (getenv("ZQ_ODD") && i == zones - 1)
            z->capacity -= 8;
    }
    r->nr_zones = (uint32_t)n;
    r->flags = BLK_ZONE_REP_CAPACITY;
    return 0;
}

static int change(unsigned long request, const struct blk_zone_range *r)
{
    uint64_t zone = r->sector * SECTOR / zone_size;
    const char *what = request == BLKRESETZONE  ? "reset" :
                       request == BLKCLOSEZONE  ? "close" :
                       request == BLKFINISHZONE ? "finish" :
                                                  "open";
    struct state s = get(zone);

    if (fails(what) || refuses(zone, BLK_ZONE_COND_READONLY))
        return -1;
    note(what, r->sector * SECTOR, r->nr_sectors * SECTOR);
    if (zone < conventional || r->nr_sectors * SECTOR != zone_size) {
        errno = EINVAL;
        return -1;
    }
    if (request == BLKRESETZONE)
        s = (struct state){0, BLK_ZONE_COND_EMPTY};
    else if (request == BLKFINISHZONE)
        s = (struct state){zone_size, BLK_ZONE_COND_FULL};
    else
        s.cond = s.wp ? BLK_ZONE_COND_CLOSED : BLK_ZONE_COND_EMPTY;
    put(zone, s);
    return 0;
}

static int answer(int fd, unsigned long request, void *arg)
{
    uint64_t size = size_of(fd);
    uint32_t sectors = (uint32_t)(zone_size / SECTOR);
    int bytes = (int)block, rc = 0;

    pthread_mutex_lock(&lock);
    switch (request) {
    case BLKGETZONESZ: memcpy(arg, &sectors, sizeof(sectors)); break;
    case BLKGETSIZE64: memcpy(arg, &size, sizeof(size)); break;
    case BLKSSZGET:
    case BLKPBSZGET: memcpy(arg, &bytes, sizeof(bytes)); break;
    case BLKREPORTZONE: rc = report(fd, arg); break;
    case BLKRESETZONE:
    case BLKCLOSEZONE:
    case BLKFINISHZONE: rc = change(request, arg); break;
    default: errno = ENOTTY; rc = -1;
    }
    pthread_mutex_unlock(&lock);
    return rc;
}

/* ---- what is preloaded ---- */

int ioctl(int fd, unsigned long request, ...)
{
    int (*fn)(int, unsigned long, void *) = NULL;
    va_list ap;
    void *arg;

    va_start(ap, request);
    arg = va_arg(ap, void *);
    va_end(ap);
    if (is_fd(fd))
        return answer(fd, request, arg);
    *(void **)&fn = next("ioctl");
    return fn(fd, request, arg);
}

long syscall(long number, ...)
{
    long (*fn)(long, long, long, long, long, long, long) = NULL;
    long a[6];
    va_list ap;

    va_start(ap, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(ap, long);
    va_end(ap);
    if (number == SYS_ioctl && is_fd((int)a[0]))
        return answer((int)a[0], (unsigned long)a[1], (void *)a[2]);
    *(void **)&fn = next("syscall");
    return fn(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int fstat(int fd, struct stat *st)
{
    int rc = real_fstat(fd, st);

    if (rc == 0 && is_it(st))
        st->st_mode = (st->st_mode & ~(mode_t)S_IFMT) | S_IFBLK;
    return rc;
}

int stat(const char *path, struct stat *st)
{
    int rc = real_stat(path, st);

    if (rc == 0 && is_it(st))
        st->st_mode = (st->st_mode & ~(mode_t)S_IFMT) | S_IFBLK;
    return rc;
}

int open(const char *path, int flags, ...)
{
    int (*fn)(const char *, int, mode_t) = NULL;
    struct stat st;
    va_list ap;
    mode_t mode;

    va_start(ap, flags);
    mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    *(void **)&fn = next("open");
    if (real_stat(path, &st) == 0 && is_it(&st)) {
        if (flags & O_EXCL && getenv("ZQ_BUSY")) {
            errno = EBUSY;
            return -1;
        }
        flags &= ~(O_DIRECT | O_EXCL);
    }
    return fn(path, flags, mode);
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t off)
{
    uint64_t zone, at;
    struct state s;

    if (!is_fd(fd))
        return real_pwrite(fd, buf, len, off);
    if (fails("write"))
        return -1;
    pthread_mutex_lock(&lock);
    zone = (uint64_t)off / zone_size;
    at = (uint64_t)off % zone_size;
    s = get(zone);
    note("write", (uint64_t)off, len);
    if (refuses(zone, BLK_ZONE_COND_READONLY) || at + len > zone_size || at % block ||
        len % block || (uintptr_t)buf % 512 ||
        (zone >= conventional && (at != s.wp || at + len > capacity))) {
        pthread_mutex_unlock(&lock);
        errno = EIO;
        return -1;
    }
    s.wp = at + len;
    s.cond = s.wp == capacity ? BLK_ZONE_COND_FULL : BLK_ZONE_COND_IMP_OPEN;
    if (zone >= conventional)
        put(zone, s);
    pthread_mutex_unlock(&lock);
    return real_pwrite(fd, buf, len, off);
}

static bool unreadable(int fd, off_t off)
{
    return is_fd(fd) && refuses((uint64_t)off / zone_size, BLK_ZONE_COND_OFFLINE);
}

ssize_t pread(int fd, void *buf, size_t len, off_t off)
{
    ssize_t (*fn)(int, void *, size_t, off_t) = NULL;

    *(void **)&fn = next("pread");
    return unreadable(fd, off) ? -1 : fn(fd, buf, len, off);
}

ssize_t preadv(int fd, const struct iovec *iov, int n, off_t off)
{
    ssize_t (*fn)(int, const struct iovec *, int, off_t) = NULL;

    *(void **)&fn = next("preadv");
    return unreadable(fd, off) ? -1 : fn(fd, iov, n, off);
}

int fdatasync(int fd)
{
    int (*fn)(int) = NULL;

    if (is_fd(fd) && fails("flush"))
        return -1;
    *(void **)&fn = next("fdatasync");
    return fn(fd);
}

/* The names of the same where off_t has 64 bits. */
int open64(const char *path, int flags, ...) __attribute__((alias("open")));
int fstat64(int fd, struct stat64 *st) __attribute__((alias("fstat")));
int stat64(const char *path, struct stat64 *st) __attribute__((alias("stat")));
ssize_t pread64(int fd, void *buf, size_t len, off64_t off) __attribute__((alias("pread")));
ssize_t preadv64(int fd, const struct iovec *iov, int n, off64_t off)
    __attribute__((alias("preadv")));
ssize_t pwrite64(int fd, const void *buf, size_t len, off64_t off) __attribute__((alias("pwrite")));
