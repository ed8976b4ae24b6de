/* SPDX-License-Identifier: MIT */
/* Pages in an ascending array: they are few, and looking for the next one is cheap. */
#include "fuzz/disk.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MiB(n)   ((uint64_t)(n) << 20)
#define LONGEST  (1ull << 60)
#define LARGEST  MiB(96) /* what a file may hold: beyond it the host is full */
#define JUNK     0xa5
#define MIN_HEAP MiB(64)

void fuzz_fail(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fputs("finding: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    abort();
}

static void *must(void *p)
{
    if (!p)
        fuzz_fail("no memory for the file itself");
    return p;
}

/* ---- pages ---- */

/* The first page whose number is not below this one. */
static size_t find(const struct disk *d, uint64_t number)
{
    size_t low = 0, high = d->n;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (d->page[mid].number < number)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static uint8_t *page_for(struct disk *d, uint64_t number)
{
    size_t i = find(d, number);

    if (i < d->n && d->page[i].number == number)
        return d->page[i].data;
    if (d->n == d->room) {
        d->room = d->room ? d->room * 2 : 64;
        d->page = must(realloc(d->page, d->room * sizeof(*d->page)));
    }
    memmove(d->page + i + 1, d->page + i, (d->n - i) * sizeof(*d->page));
    d->n++;
    d->page[i] = (struct disk_page){number, must(calloc(1, DISK_PAGE))};
    return d->page[i].data;
}

static void drop(struct disk *d, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        free(d->page[i].data);
    if (to > from)
        memmove(d->page + from, d->page + to, (d->n - to) * sizeof(*d->page));
    d->n -= to - from;
}

static size_t piece(uint64_t off, uint64_t len)
{
    uint64_t room = DISK_PAGE - off % DISK_PAGE;

    return (size_t)(len < room ? len : room);
}

void disk_get(const struct disk *d, void *buf, size_t len, uint64_t off)
{
    uint8_t *to = buf;

    for (size_t n, i; len; to += n, off += n, len -= n) {
        n = piece(off, len);
        i = find(d, off / DISK_PAGE);
        if (i < d->n && d->page[i].number == off / DISK_PAGE)
            memcpy(to, d->page[i].data + off % DISK_PAGE, n);
        else
            memset(to, 0, n);
    }
}

static bool all_zero(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i])
            return false;
    }
    return true;
}

void disk_put(struct disk *d, const void *buf, size_t len, uint64_t off)
{
    const uint8_t *from = buf;

    if (off + len > d->length)
        d->length = off + len;
    for (size_t n; len; from += n, off += n, len -= n) {
        n = piece(off, len);
        memcpy(page_for(d, off / DISK_PAGE) + off % DISK_PAGE, from, n);
    }
}

static void clear(struct disk *d, uint64_t off, uint64_t end)
{
    uint64_t first = (off + DISK_PAGE - 1) / DISK_PAGE, last = end / DISK_PAGE;

    for (size_t i = find(d, off / DISK_PAGE); i < d->n && d->page[i].number <= last; i++) {
        uint64_t at = d->page[i].number * DISK_PAGE;
        uint64_t from = at > off ? at : off, to = at + DISK_PAGE < end ? at + DISK_PAGE : end;

        if (from < to)
            memset(d->page[i].data + (from - at), 0, (size_t)(to - from));
    }
    if (first < last)
        drop(d, find(d, first), find(d, last));
}

void disk_resize(struct disk *d, uint64_t length)
{
    if (length < d->length)
        clear(d, length, (d->length + DISK_PAGE - 1) / DISK_PAGE * DISK_PAGE);
    d->length = length;
}

uint64_t disk_allocated(const struct disk *d)
{
    return (uint64_t)d->n * DISK_PAGE;
}

void disk_init(struct disk *d, const uint8_t *bytes, uint64_t length)
{
    memset(d, 0, sizeof(*d));
    for (uint64_t at = 0; at < length; at += DISK_PAGE) {
        size_t n = piece(at, length - at);

        if (!all_zero(bytes + at, n))
            disk_put(d, bytes + at, n, at);
    }
    d->length = length;
}

void disk_free(struct disk *d)
{
    drop(d, 0, d->n);
    free(d->page);
    memset(d, 0, sizeof(*d));
}

void disk_copy(struct disk *to, const struct disk *from)
{
    memset(to, 0, sizeof(*to));
    for (size_t i = 0; i < from->n; i++)
        disk_put(to, from->page[i].data, DISK_PAGE, from->page[i].number * DISK_PAGE);
    to->length = from->length;
}

static bool covers(const struct disk *a, const struct disk *b)
{
    uint8_t other[DISK_PAGE];

    for (size_t i = 0; i < a->n; i++) {
        disk_get(b, other, DISK_PAGE, a->page[i].number * DISK_PAGE);
        if (memcmp(a->page[i].data, other, DISK_PAGE) != 0)
            return false;
    }
    return true;
}

bool disk_equal(const struct disk *a, const struct disk *b)
{
    return a->length == b->length && covers(a, b) && covers(b, a);
}

/* ---- the backend ---- */

void disk_allow(struct disk *d, uint64_t moved)
{
    uint64_t have = disk_allocated(d);

    d->calls = d->bytes = 0;
    d->max_calls = 16384 + have / 64 + moved / 512 * 4;
    d->max_bytes = MiB(64) + 32 * have + 4 * moved;
    d->max_live = MIN_HEAP + 32 * have;
}

static void spend(struct disk *d, uint64_t bytes)
{
    d->calls++;
    d->bytes += bytes;
    if (d->max_calls && (d->calls > d->max_calls || d->bytes > d->max_bytes))
        fuzz_fail("%llu calls and %llu bytes for a file of %llu bytes, %llu of them allocated",
                  (unsigned long long)d->calls, (unsigned long long)d->bytes,
                  (unsigned long long)d->length, (unsigned long long)disk_allocated(d));
}

static int op_length(void *self, uint64_t *bytes)
{
    *bytes = ((struct disk *)self)->length;
    return 0;
}

static int op_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    for (int i = 0; i < cnt; off += iov[i++].iov_len) {
        spend(self, iov[i].iov_len);
        disk_get(self, iov[i].iov_base, iov[i].iov_len, off);
    }
    return 0;
}

static int op_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct disk *d = self;

    d->written++;
    for (int i = 0; i < cnt; off += iov[i++].iov_len) {
        spend(d, iov[i].iov_len);
        if (off > LONGEST || iov[i].iov_len > LARGEST - disk_allocated(d))
            return off > LONGEST ? -EFBIG : -ENOSPC;
        disk_put(d, iov[i].iov_base, iov[i].iov_len, off);
    }
    return 0;
}

static int op_flush(void *self)
{
    spend(self, 0);
    return 0;
}

static int op_truncate(void *self, uint64_t bytes)
{
    struct disk *d = self;

    spend(d, 0);
    d->written++;
    if (bytes > LONGEST)
        return -EFBIG;
    disk_resize(d, bytes);
    return 0;
}

static int op_zero(void *self, uint64_t off, uint64_t len)
{
    struct disk *d = self;

    spend(d, 0);
    d->written++;
    if (off > LONGEST || len > LONGEST)
        return -EFBIG;
    clear(d, off, off + len);
    if (off + len > d->length)
        d->length = off + len;
    return 0;
}

/* Nobody may rely on what was discarded; junk would only fill memory. */
static int op_discard(void *self, uint64_t off, uint64_t len)
{
    struct disk *d = self;

    spend(d, 0);
    d->written++;
    if (off < d->length)
        clear(d, off, len < d->length - off ? off + len : d->length);
    return 0;
}

static int op_data(void *self, uint64_t off, uint64_t *begin, uint64_t *end)
{
    struct disk *d = self;
    size_t i = find(d, off / DISK_PAGE);
    uint64_t next;

    spend(d, 0);
    *begin = *end = off;
    if (i == d->n || d->page[i].number * DISK_PAGE >= d->length)
        return 0;
    next = d->page[i].number * DISK_PAGE;
    *begin = next > off ? next : off;
    while (i + 1 < d->n && d->page[i + 1].number == d->page[i].number + 1)
        i++;
    *end = (d->page[i].number + 1) * DISK_PAGE;
    *end = *end < d->length ? *end : d->length;
    return 0;
}

struct zqcow2_backend *disk_backend(struct disk *d)
{
    static const struct zqcow2_backend_ops ops = {.size = sizeof(ops),
                                                  .name = "fuzz",
                                                  .length = op_length,
                                                  .readv = op_readv,
                                                  .writev = op_writev,
                                                  .flush = op_flush,
                                                  .truncate = op_truncate,
                                                  .discard = op_discard,
                                                  .zero = op_zero,
                                                  .data = op_data};
    struct zqcow2_backend *be;

    if (zqcow2_backend_new(&ops, d, NULL, &be) != 0)
        fuzz_fail("no backend");
    return be;
}

/* ---- the heap: blocks of their exact size, for the sanitizer's sake ---- */

static void *hook_alloc(void *ctx, size_t align, size_t size)
{
    struct disk *d = ctx;
    void *p;

    d->live += size;
    if (d->max_live && d->live > d->max_live)
        fuzz_fail("%llu bytes of heap for a file of %llu bytes, %llu of them allocated",
                  (unsigned long long)d->live, (unsigned long long)d->length,
                  (unsigned long long)disk_allocated(d));
    if (posix_memalign(&p, align < sizeof(void *) ? sizeof(void *) : align, size) != 0)
        fuzz_fail("no memory");
    return memset(p, JUNK, size);
}

static void hook_free(void *ctx, void *ptr, size_t size)
{
    struct disk *d = ctx;

    if (size > d->live)
        fuzz_fail("%zu bytes freed, and only %llu are live", size, (unsigned long long)d->live);
    d->live -= size;
    free(memset(ptr, JUNK, size));
}

struct zqcow2_hooks disk_hooks(struct disk *d)
{
    struct zqcow2_hooks hooks = ZQCOW2_HOOKS_INIT;

    hooks.ctx = d;
    hooks.alloc = hook_alloc;
    hooks.free = hook_free;
    return hooks;
}
