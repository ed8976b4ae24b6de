/* SPDX-License-Identifier: MIT */
/*
 * bench_snapshots FOLDER: how long a snapshot takes in large images. Figures are reported, never
 * asserted. Data clusters are holes, so that a small disk will do; L2 tables and refcounts are
 * real, and are made here by the bytes of the file.
 *
 * zoned: 16 TiB in 65,536 zones, of which each 100th is full: one snapshot.
 * plain: 1 TiB with 10 GiB mapped; 1,000 snapshots (or argument 2) with 64 KiB written between.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zqcow2/backend.h>
#include <zqcow2/zqcow2.h>

#define CLUSTER 65536u
#define ENTRIES (CLUSTER / 8) /* of an L2 table */
#define COUNTS  (CLUSTER / 2) /* of a refcount block, of 16 bits each */
#define COPIED  ((uint64_t)1 << 63)
#define GIB     ((uint64_t)1 << 30)

static void must(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "bench_snapshots: %s\n", what);
    exit(1);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct zqcow2_image *open_image(const char *path, bool create,
                                       const struct zqcow2_create_options *how)
{
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_error err = {0, ""};
    struct zqcow2_backend *be;
    struct zqcow2_image *img;

    must(zqcow2_file_open(path, create ? ZQCOW2_FILE_RDWR | ZQCOW2_FILE_CREATE : ZQCOW2_FILE_RDWR,
                          NULL, &be) == 0,
         path);
    must(!create || zqcow2_create(be, how, &err) == 0, err.text);
    opt.flags = ZQCOW2_OPEN_RDWR;
    must(zqcow2_open(be, &opt, &img, &err) == 0, err.text);
    return img;
}

/* ---- mapped, by the bytes of the file ---- */

static uint64_t get(FILE *f, uint64_t at)
{
    uint8_t raw[8];
    uint64_t v = 0;

    must(fseeko(f, (off_t)at, SEEK_SET) == 0 && fread(raw, 8, 1, f) == 1, "read");
    for (unsigned i = 0; i < 8; i++)
        v = v << 8 | raw[i];
    return v;
}

static void put(uint8_t *to, unsigned n, uint64_t v)
{
    for (unsigned i = 0; i < n; i++)
        to[i] = (uint8_t)(v >> 8 * (n - 1 - i));
}

static void write_at(FILE *f, uint64_t at, const void *from, size_t n)
{
    must(fseeko(f, (off_t)at, SEEK_SET) == 0 && fwrite(from, n, 1, f) == 1, "write");
}

/* Refcounts of 1 for n clusters; a block is made if there is none. */
static void count(FILE *f, uint64_t cluster, uint64_t n, uint64_t *free_at)
{
    static uint8_t ones[2 * COUNTS];
    uint64_t rt = get(f, 48), block, part;
    uint8_t one[8];

    for (uint64_t i = 0; i < COUNTS; i++)
        ones[2 * i + 1] = 1;
    for (; n; n -= part, cluster += part) {
        part = COUNTS - cluster % COUNTS < n ? COUNTS - cluster % COUNTS : n;
        block = get(f, rt + cluster / COUNTS * 8);
        if (!block) {
            block = *free_at;
            *free_at += CLUSTER;
            put(one, 8, block);
            write_at(f, rt + cluster / COUNTS * 8, one, 8);
            count(f, block / CLUSTER, 1, free_at);
        }
        write_at(f, block + cluster % COUNTS * 2, ones, part * 2);
    }
}

/* n clusters of the device, from the guest offset on, at *data; no more than an L2 table maps. */
static void map(FILE *f, uint64_t guest, uint64_t n, uint64_t *tables, uint64_t *data)
{
    static uint8_t l2[CLUSTER];
    uint64_t first = guest / CLUSTER % ENTRIES, l1 = get(f, 40);
    uint8_t one[8];

    memset(l2, 0, sizeof(l2));
    for (uint64_t i = 0; i < n; i++)
        put(l2 + (first + i) * 8, 8, (*data + i * CLUSTER) | COPIED);
    write_at(f, *tables, l2, sizeof(l2));
    put(one, 8, *tables | COPIED);
    write_at(f, l1 + guest / CLUSTER / ENTRIES * 8, one, 8);
    count(f, *tables / CLUSTER, 1, tables);
    *data += n * CLUSTER;
}

/* Every so many bytes; tables behind what create has made, the data from 2 GiB on. */
static void map_all(const char *path, uint64_t step, uint64_t pieces, uint64_t bytes)
{
    FILE *f = fopen(path, "r+");
    uint64_t tables, first = 2 * GIB, data = first;

    must(f && fseeko(f, 0, SEEK_END) == 0, path);
    tables = ((uint64_t)ftello(f) + CLUSTER - 1) / CLUSTER * CLUSTER;
    for (uint64_t i = 0; i < pieces; i++) {
        map(f, i * step, bytes / CLUSTER, &tables, &data);
        tables += CLUSTER;
    }
    must(fflush(f) == 0 && ftruncate(fileno(f), (off_t)data) == 0, "length");
    count(f, first / CLUSTER, (data - first) / CLUSTER, &tables);
    must(fclose(f) == 0, "close");
}

/* ---- figures ---- */

static double take(struct zqcow2_image *img, unsigned number)
{
    struct zqcow2_snapshot s = ZQCOW2_SNAPSHOT_INIT;
    struct zqcow2_error err = {0, ""};
    char name[32];
    double begin = now();

    snprintf(name, sizeof(name), "snapshot %u", number);
    s.name = name;
    must(zqcow2_snapshot_take(img, &s, &err) == 0, err.text);
    return (now() - begin) * 1000;
}

static double timed_open(const char *path, struct zqcow2_image **img)
{
    double begin = now();

    *img = open_image(path, false, NULL);
    return (now() - begin) * 1000;
}

static void zoned(const char *path)
{
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_image *img;
    double opened, begin;

    how.virtual_size = 16384 * GIB;
    how.zone_size = GIB / 4;
    img = open_image(path, true, &how);
    for (uint64_t i = 0; i < 655; i++)
        must(zqcow2_zone_finish(img, i * 100 * how.zone_size, how.zone_size, 0) == 0, "finish");
    must(zqcow2_close(img) == 0, "close");
    map_all(path, 100 * how.zone_size, 655, how.zone_size);
    opened = timed_open(path, &img);
    printf("16 TiB, 65,536 zones, 655 full: open %.1f ms, take %.0f ms", opened, take(img, 1));
    printf(", next take %.0f ms", take(img, 2));
    begin = now();
    must(zqcow2_snapshot_apply(img, "1", NULL) == 0, "apply");
    printf(", apply %.0f ms", (now() - begin) * 1000);
    begin = now();
    must(zqcow2_snapshot_delete(img, "1", NULL) == 0, "delete");
    printf(", delete %.0f ms\n", (now() - begin) * 1000);
    must(zqcow2_close(img) == 0, "close");
}

static void plain(const char *path, unsigned snapshots)
{
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    static uint8_t bytes[CLUSTER];
    struct zqcow2_image *img;
    double last = 0;

    how.virtual_size = 1024 * GIB;
    zqcow2_close(open_image(path, true, &how));
    map_all(path, GIB / 2, 20, GIB / 2);
    img = open_image(path, false, NULL);
    for (unsigned i = 0; i < snapshots; i++) {
        memset(bytes, (int)i + 1, sizeof(bytes));
        must(zqcow2_write(img, bytes, sizeof(bytes), i * 37ull % 160 * GIB / 16, 0) == 0, "write");
        last = take(img, i);
    }
    must(zqcow2_close(img) == 0, "close");
    printf("1 TiB, 10 GiB mapped, %u snapshots: the last take %.0f ms", snapshots, last);
    printf(", open %.1f ms", timed_open(path, &img));
    printf(", next take %.0f ms\n", take(img, snapshots));
    must(zqcow2_close(img) == 0, "close");
}

int main(int argc, char **argv)
{
    const char *path = "snapshots.qcow2";

    must(argc > 1 && chdir(argv[1]) == 0, "usage: bench_snapshots FOLDER [SNAPSHOTS]");
    zoned(path);
    unlink(path);
    plain(path, argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 1000);
    unlink(path);
    return 0;
}
