/* SPDX-License-Identifier: MIT */
/*
 * Small files that claim to be huge: memory, and bytes that are read, are bounded by what a file
 * has, and not by how long it is. Nothing that could be read before is changed.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#include <zqcow2/backend.h>
#include "rig/heap_fault.h"

#define KiB(n) ((uint64_t)(n) << 10)
#define MiB(n) ((uint64_t)(n) << 20)
#define TiB(n) ((uint64_t)(n) << 40)
#define COPIED (1ull << 63)
#define MEMORY MiB(64)

/* ---- a sparse file that counts what is read of it ---- */

struct sparse {
    int fd;
    uint64_t read, calls;
};

static int sp_length(void *self, uint64_t *bytes)
{
    struct stat st;

    *bytes = fstat(((struct sparse *)self)->fd, &st) ? 0 : (uint64_t)st.st_size;
    return 0;
}

static int sp_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct sparse *s = self;

    s->calls++;
    for (int i = 0; i < cnt; i++) {
        ssize_t n = pread(s->fd, iov[i].iov_base, iov[i].iov_len, (off_t)off);

        n = n < 0 ? 0 : n;
        memset((char *)iov[i].iov_base + n, 0, iov[i].iov_len - (size_t)n);
        off += iov[i].iov_len;
        s->read += iov[i].iov_len;
    }
    return 0;
}

static int sp_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    return pwritev(((struct sparse *)self)->fd, iov, cnt, (off_t)off) < 0 ? -errno : 0;
}

static int sp_flush(void *self)
{
    (void)self;
    return 0;
}

static int sp_truncate(void *self, uint64_t bytes)
{
    return ftruncate(((struct sparse *)self)->fd, (off_t)bytes) < 0 ? -errno : 0;
}

static int sp_data(void *self, uint64_t off, uint64_t *begin, uint64_t *end)
{
    int fd = ((struct sparse *)self)->fd;
    off_t at = lseek(fd, (off_t)off, SEEK_DATA);

    *begin = at < 0 ? off : (uint64_t)at;
    *end = at < 0 ? off : (uint64_t)lseek(fd, at, SEEK_HOLE);
    return 0;
}

static struct zqcow2_backend *sp_open(struct sparse *s)
{
    static const struct zqcow2_backend_ops ops = {.size = sizeof(ops),
                                                  .name = "sparse",
                                                  .length = sp_length,
                                                  .readv = sp_readv,
                                                  .writev = sp_writev,
                                                  .flush = sp_flush,
                                                  .truncate = sp_truncate,
                                                  .data = sp_data};
    const char *dir = getenv("TMPDIR");
    char path[256];
    struct zqcow2_backend *be;

    snprintf(path, sizeof(path), "%s/zqbounds-XXXXXX", dir ? dir : "/tmp");
    s->fd = mkstemp(path);
    assert_true(s->fd >= 0);
    unlink(path);
    s->read = s->calls = 0;
    assert_int_equal(zqcow2_backend_new(&ops, s, NULL, &be), 0);
    return be;
}

static void put(struct sparse *s, uint64_t off, unsigned width, uint64_t v)
{
    uint8_t b[8];

    for (unsigned i = width; i-- > 0; v >>= 8)
        b[i] = (uint8_t)v;
    assert_int_equal(pwrite(s->fd, b, width, (off_t)off), width);
}

/* A header of version 3; the tables are the caller's. */
static void header(struct sparse *s, unsigned bits, uint64_t size, uint64_t l1, uint32_t l1_size,
                   uint64_t rt, uint32_t rt_clusters)
{
    put(s, 0, 8, 0x514649fb00000003);
    put(s, 20, 4, bits);
    put(s, 24, 8, size);
    put(s, 36, 4, l1_size);
    put(s, 40, 8, l1);
    put(s, 48, 8, rt);
    put(s, 56, 4, rt_clusters);
    put(s, 96, 4, 4);
    put(s, 100, 4, 104);
}

/* Clusters of 512 bytes: header, refcount table, block, L1, all counted. */
static void small(struct sparse *s)
{
    header(s, 9, 512, 1536, 1, 512, 1);
    put(s, 512, 8, 1024);
    for (int i = 0; i < 4; i++)
        put(s, 1024 + (uint64_t)i * 2, 2, 1);
    put(s, 1536, 8, 0);
    assert_int_equal(ftruncate(s->fd, 2048), 0);
}

/* ---- what is asked ---- */

static uint64_t allocated(const struct sparse *s)
{
    struct stat st;

    assert_int_equal(fstat(s->fd, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

/* Checks with all degrees of repair; 32 times what the file has may be read, and some more. */
static void expect_bounded(struct sparse *s, struct zqcow2_backend *be, unsigned flags,
                           const char *what)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    uint64_t before = allocated(s), most;
    struct zqcow2_hooks hooks;
    struct zqcow2_error err;
    struct heap heap;
    int rc;

    heap_init(&heap);
    hooks = heap_hooks(&heap);
    o.hooks = &hooks;
    o.flags = flags;
    s->read = s->calls = 0;
    rc = zqcow2_check(be, &o, &res, &err);
    most = MiB(64) + 32 * before;
    printf("%s: %d, %llu KiB on disk, %llu KiB of heap at most, %llu KiB read in %llu calls\n",
           what, rc, (unsigned long long)before >> 10, (unsigned long long)heap.peak_bytes >> 10,
           (unsigned long long)s->read >> 10, (unsigned long long)s->calls);
    if (rc)
        fail_msg("%s: %s", what, err.text);
    if (heap.peak_bytes > MEMORY || s->read > most)
        fail_msg("%s: more than %llu MiB of heap, or %llu KiB read", what,
                 (unsigned long long)MEMORY >> 20, (unsigned long long)most >> 10);
    if (heap_verdict(&heap))
        fail_msg("%s: %s", what, heap_verdict(&heap));
    heap_destroy(&heap);
}

static void end(struct sparse *s, struct zqcow2_backend *be)
{
    zqcow2_backend_close(be);
    close(s->fd);
}

static void bitmaps(struct sparse *s, uint32_t n, uint64_t dir, uint64_t bytes)
{
    put(s, 104, 8, 0x2385287500000018);
    put(s, 112, 4, n);
    put(s, 116, 4, 0);
    put(s, 120, 8, bytes);
    put(s, 128, 8, dir);
    put(s, 88, 8, 1);
}

/* ---- the files ---- */

static void test_directory_in_a_hole(void **state)
{
    struct sparse s;
    struct zqcow2_backend *be = sp_open(&s);

    (void)state;
    small(&s);
    assert_int_equal(ftruncate(s.fd, (off_t)TiB(1)), 0);
    bitmaps(&s, 1, KiB(512), TiB(1) - MiB(1));
    expect_bounded(&s, be, 0, "directory of bitmaps of 1 TiB");
    bitmaps(&s, 1, KiB(512), MiB(64));
    expect_bounded(&s, be, 0, "directory of bitmaps of 64 MiB");
    put(&s, 88, 8, 0);
    put(&s, 72, 8, 1); /* dirty, and the bitmaps say nothing: opening for writing repairs */
    expect_bounded(&s, be, ZQCOW2_CHECK_REPAIR, "stale directory");
    end(&s, be);
}

/* Thousands of bitmaps, a table of 64 MiB each, all in holes. */
static void test_bitmap_tables_in_holes(void **state)
{
    struct sparse s;
    struct zqcow2_backend *be = sp_open(&s);

    (void)state;
    small(&s);
    for (uint64_t i = 0; i < 4000; i++) {
        put(&s, MiB(1) + i * 24, 8, MiB(64) * (i + 1));
        put(&s, MiB(1) + i * 24 + 8, 4, MiB(8));
        put(&s, MiB(1) + i * 24 + 16, 8, 0x0110000000000000);
    }
    bitmaps(&s, 4000, MiB(1), 4000 * 24);
    assert_int_equal(ftruncate(s.fd, (off_t)TiB(1)), 0);
    expect_bounded(&s, be, 0, "tables of bitmaps in holes");
    end(&s, be);
}

static void test_snapshot_tables_in_holes(void **state)
{
    struct sparse s;
    struct zqcow2_backend *be = sp_open(&s);

    (void)state;
    small(&s);
    for (uint64_t i = 0; i < 4000; i++) {
        put(&s, MiB(1) + i * 56, 8, MiB(32) * (i + 1));
        put(&s, MiB(1) + i * 56 + 8, 4, MiB(4));
        put(&s, MiB(1) + i * 56 + 36, 4, 16);
        put(&s, MiB(1) + i * 56 + 48, 8, 512);
    }
    put(&s, 60, 4, 4000);
    put(&s, 64, 8, MiB(1));
    assert_int_equal(ftruncate(s.fd, (off_t)TiB(1)), 0);
    expect_bounded(&s, be, 0, "L1 tables of snapshots in holes");
    end(&s, be);
}

/* Clusters of 2 MiB, refcount blocks and L2 tables in holes: 8 bytes of a table cost 2 MiB. */
static void test_tables_in_holes(void **state)
{
    uint64_t size = MiB(2), n = 4096;
    struct sparse s;
    struct zqcow2_backend *be = sp_open(&s);

    (void)state;
    header(&s, 21, n << 39, 2 * size, (uint32_t)n, size, 1);
    put(&s, size, 8, 3 * size);
    for (uint64_t i = 0; i < 4 + 2 * n; i++)
        put(&s, 3 * size + i * 2, 2, 1);
    for (uint64_t i = 0; i < n; i++) {
        put(&s, 2 * size + i * 8, 8, (4 + i) * size | COPIED);
        put(&s, size + 8 + i * 8, 8, (4 + n + i) * size);
    }
    assert_int_equal(ftruncate(s.fd, (off_t)((4 + 2 * n) * size)), 0);
    expect_bounded(&s, be, 0, "L2 tables and refcount blocks in holes");
    expect_bounded(&s, be, ZQCOW2_CHECK_REPAIR, "the same, repaired");
    end(&s, be);
}

/* Entries far apart, last first: each costs its own way through the counts. */
static void test_far_apart(void **state)
{
    uint64_t n = 2048, step = 512 * 512, l2 = KiB(64), total = n * 64, first = MiB(4);
    uint64_t *tables = calloc(total, 8);
    struct sparse s;
    struct zqcow2_backend *be = sp_open(&s);

    (void)state;
    assert_non_null(tables);
    header(&s, 9, total * 512, KiB(4), (uint32_t)n, 512, 1);
    put(&s, 512, 8, 1024);
    for (uint64_t i = 0; i < 256; i++)
        put(&s, 1024 + i * 2, 2, 1);
    for (uint64_t i = 0; i < n; i++)
        put(&s, KiB(4) + i * 8, 8, (l2 + i * 512) | COPIED);
    for (uint64_t i = 0; i < total; i++)
        tables[i] = htobe64((first + (total - i) * step) | COPIED);
    assert_int_equal(pwrite(s.fd, tables, total * 8, (off_t)l2), (ssize_t)(total * 8));
    assert_int_equal(ftruncate(s.fd, (off_t)(first + (total + 2) * step)), 0);
    expect_bounded(&s, be, 0, "data far apart, last first");
    free(tables);
    end(&s, be);
}

/* A million entries of the refcount table name one block that is full. */
static void test_one_block_for_all(void **state)
{
    uint64_t *rt = calloc(MiB(1), 8), size = MiB(2);
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_hooks hooks;
    struct zqcow2_image *img;
    struct zqcow2_error err;
    struct sparse s;
    struct zqcow2_backend *be = sp_open(&s);
    struct heap heap;

    (void)state;
    assert_non_null(rt);
    header(&s, 21, MiB(1), 5 * size, 1, size, 4);
    for (uint64_t i = 0; i < MiB(1); i++)
        rt[i] = htobe64(6 * size);
    assert_int_equal(pwrite(s.fd, rt, MiB(8), (off_t)size), (ssize_t)MiB(8));
    for (uint64_t i = 0; i < MiB(1); i++)
        rt[i] = 0x0100010001000100;
    assert_int_equal(pwrite(s.fd, rt, size, (off_t)(6 * size)), (ssize_t)size);
    assert_int_equal(ftruncate(s.fd, (off_t)(7 * size)), 0);
    heap_init(&heap);
    hooks = heap_hooks(&heap);
    o.hooks = &hooks;
    o.flags = ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_BORROW;
    assert_int_equal(zqcow2_open(be, &o, &img, &err), ZQCOW2_ECORRUPT);
    assert_non_null(strstr(err.text, "name the same cluster"));
    printf("one block for all: %llu KiB of heap at most\n",
           (unsigned long long)heap.peak_bytes >> 10);
    assert_true(heap.peak_bytes < MEMORY);
    o.flags = ZQCOW2_OPEN_BORROW;
    assert_int_equal(zqcow2_open(be, &o, &img, &err), 0);
    assert_int_equal(zqcow2_close(img), 0);
    heap_destroy(&heap);
    expect_bounded(&s, be, 0, "one block for all");
    free(rt);
    end(&s, be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_directory_in_a_hole),
        cmocka_unit_test(test_bitmap_tables_in_holes),
        cmocka_unit_test(test_snapshot_tables_in_holes),
        cmocka_unit_test(test_tables_in_holes),
        cmocka_unit_test(test_far_apart),
        cmocka_unit_test(test_one_block_for_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
