/* SPDX-License-Identifier: MIT */
/*
 * Random writes and reads on images whose backend or tables have an awkward shape: blocks of 4 KiB,
 * short transfers, few buffers, a refcount table that must grow. Compared with an array of bytes.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <zqcow2/queue.h>
#include <zqcow2/simdisk.h>

#define SIZE    (4u << 20)
#define LONGEST (160u << 10)

struct shape {
    const char *name;
    uint32_t flags, io_align, buf_align, max_transfer, cluster, refcount_bits;
    uint64_t zone_size;
};

static const struct shape shapes[] = {
    {"4 KiB blocks", 0, 4096, 512, 0, 65536, 16, 0},
    {"4 KiB blocks, asynchronous", ZQCOW2_SIMDISK_ASYNC, 4096, 4096, 65536, 65536, 16, 0},
    {"4 KiB blocks, small clusters", ZQCOW2_SIMDISK_ASYNC, 4096, 4096, 0, 512, 16, 0},
    {"4 KiB blocks, zones", ZQCOW2_SIMDISK_ASYNC, 4096, 4096, 65536, 4096, 16, 1u << 20},
    {"aligned memory", 0, 512, 4096, 65536, 65536, 1, 0},
    {"a growing table", 0, 1, 1, 0, 512, 64, 0},
    {"a growing table, asynchronous", ZQCOW2_SIMDISK_ASYNC, 1, 1, 0, 512, 64, 0},
    {"a growing table, 4 KiB blocks", ZQCOW2_SIMDISK_ASYNC, 4096, 512, 0, 512, 64, 1u << 20},
    {"no cheap zeros", ZQCOW2_SIMDISK_NO_ZERO | ZQCOW2_SIMDISK_NO_DISCARD, 4096, 512, 0, 4096, 32,
     0},
};

struct world {
    const struct shape *shape;
    struct zqcow2_simdisk *disk;
    struct zqcow2_image *img;
    uint8_t *model, *buf;
    uint64_t rng;
    unsigned step;
};

static uint64_t draw(struct world *w, uint64_t n)
{
    w->rng = w->rng * 6364136223846793005u + 1442695040888963407u;
    return (w->rng >> 33) % n;
}

static void must(struct world *w, const char *what, int rc)
{
    if (rc < 0)
        fail_msg("shape \"%s\", step %u: %s: %s", w->shape->name, w->step, what,
                 zqcow2_strerror(rc));
}

static void open_image(struct world *w)
{
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;

    opt.flags = ZQCOW2_OPEN_RDWR;
    opt.cache_bytes = 1;
    must(w, "backend", zqcow2_simdisk_backend(w->disk, &be));
    must(w, "open", zqcow2_open(be, &opt, &w->img, NULL));
}

static void create_image(struct world *w)
{
    struct zqcow2_simdisk_options disk = ZQCOW2_SIMDISK_OPTIONS_INIT;
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_backend *be;

    disk.seed = 7;
    disk.flags = w->shape->flags;
    disk.io_align = w->shape->io_align;
    disk.buf_align = w->shape->buf_align;
    disk.max_transfer = w->shape->max_transfer;
    how.virtual_size = SIZE;
    how.cluster_size = w->shape->cluster;
    how.refcount_bits = w->shape->refcount_bits;
    how.zone_size = w->shape->zone_size;
    how.conventional_zones = how.zone_size ? 2 : 0;
    must(w, "disk", zqcow2_simdisk_new(&disk, &w->disk));
    must(w, "backend", zqcow2_simdisk_backend(w->disk, &be));
    must(w, "create", zqcow2_create(be, &how, NULL));
    zqcow2_backend_close(be);
    open_image(w);
}

/* Where writes may go anywhere: the whole device, or its two conventional zones. */
static uint64_t free_end(const struct world *w)
{
    return w->shape->zone_size ? 2 * w->shape->zone_size : SIZE;
}

static uint64_t range(struct world *w, uint64_t end, uint64_t *len)
{
    uint64_t off = draw(w, end / 512) * 512;

    *len = (1 + draw(w, LONGEST / 512)) * 512;
    if (draw(w, 2))
        *len = (1 + draw(w, 16)) * 512;
    if (*len > end - off)
        *len = end - off;
    return off;
}

/* From memory of any alignment, in one piece or three. */
static void write_somewhere(struct world *w, uint64_t off, uint64_t len)
{
    uint8_t *from = w->buf + draw(w, 64) * 8;
    uint64_t a = len > 1024 ? 512 : len, b = len > 1024 ? len - 1024 : 0;
    struct iovec iov[3] = {{from, a}, {from + a, b}, {from + a + b, len - a - b}};
    struct zqcow2_request req = {.size = sizeof(req),
                                 .op = ZQCOW2_OP_WRITE,
                                 .offset = off,
                                 .iov = iov,
                                 .iovcnt = len > 1024 ? 3 : 1};

    for (uint64_t i = 0; i < len; i++)
        from[i] = (uint8_t)draw(w, 256);
    memcpy(w->model + off, from, len);
    must(w, "write", zqcow2_run(w->img, &req, NULL));
}

static void append_somewhere(struct world *w)
{
    struct zqcow2_zone zone;
    uint32_t one = 1;
    uint64_t z = w->shape->zone_size, off = (2 + draw(w, 2)) * z, len = (1 + draw(w, 200)) * 512;

    must(w, "report", zqcow2_zone_report(w->img, off, &zone, &one));
    if (len > zone.start + zone.capacity - zone.write_pointer || zone.state == ZQCOW2_ZONE_FULL) {
        must(w, "reset", zqcow2_zone_reset(w->img, off, z, draw(w, 2) ? ZQCOW2_FUA : 0));
        memset(w->model + off, 0, z);
        return;
    }
    for (uint64_t i = 0; i < len; i++)
        w->buf[i + 1] = (uint8_t)draw(w, 256);
    memcpy(w->model + zone.write_pointer, w->buf + 1, len);
    must(w, "append", zqcow2_append(w->img, w->buf + 1, len, &off, 0));
    assert_int_equal(off, zone.write_pointer);
}

static void read_somewhere(struct world *w, uint64_t off, uint64_t len)
{
    uint8_t *to = w->buf + draw(w, 64);

    must(w, "read", zqcow2_read(w->img, to, len, off));
    for (uint64_t i = 0; i < len; i++) {
        if (to[i] != w->model[off + i])
            fail_msg("shape \"%s\", step %u: byte %llu is %02x, not %02x", w->shape->name, w->step,
                     (unsigned long long)(off + i), to[i], w->model[off + i]);
    }
}

static void one_step(struct world *w)
{
    uint64_t len, off = range(w, free_end(w), &len);

    switch (draw(w, 10)) {
    case 0:
        must(w, "zeroes", zqcow2_write_zeroes(w->img, len, off, 0));
        memset(w->model + off, 0, len);
        break;
    case 1: must(w, "flush", zqcow2_flush(w->img)); break;
    case 2:
    case 3:
        off = range(w, SIZE, &len);
        read_somewhere(w, off, len);
        break;
    case 4:
    case 5:
        if (w->shape->zone_size) {
            append_somewhere(w);
            break;
        } /* fall through */
    default: write_somewhere(w, off, len);
    }
}

static void reopen_and_check(struct world *w)
{
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be;

    must(w, "close", zqcow2_close(w->img));
    must(w, "backend", zqcow2_simdisk_backend(w->disk, &be));
    must(w, "check", zqcow2_check(be, NULL, &res, NULL));
    zqcow2_backend_close(be);
    if (res.corruptions || res.leaked_clusters)
        fail_msg("shape \"%s\": %llu corruptions, %llu leaks", w->shape->name,
                 (unsigned long long)res.corruptions, (unsigned long long)res.leaked_clusters);
    open_image(w);
    for (uint64_t off = 0; off < SIZE; off += LONGEST)
        read_somewhere(w, off, off + LONGEST <= SIZE ? LONGEST : SIZE - off);
}

static void every_shape_keeps_what_was_written(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        struct world w = {.shape = &shapes[i], .rng = i + 1};
        struct zqcow2_simdisk_counters n = ZQCOW2_SIMDISK_COUNTERS_INIT;

        w.model = calloc(1, SIZE);
        w.buf = calloc(1, LONGEST + 512);
        assert_true(w.model && w.buf);
        create_image(&w);
        for (w.step = 0; w.step < 400; w.step++) {
            one_step(&w);
            if (w.step % 133 == 132)
                reopen_and_check(&w);
        }
        must(&w, "close", zqcow2_close(w.img));
        assert_int_equal(zqcow2_simdisk_get_counters(w.disk, &n), 0);
        assert_int_equal(n.misuse, 0);
        zqcow2_simdisk_free(w.disk);
        free(w.model);
        free(w.buf);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shape_keeps_what_was_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
