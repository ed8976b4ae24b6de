/* SPDX-License-Identifier: MIT */
/*
 * Crash-tests a small program that keeps a log of records in the zones of an image: runs it once
 * on a simulated disk, then looks at everything that a power loss at any instant may have left.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zqcow2/simdisk.h>

#define BLOCK   512u
#define ZONE    (16u << 10)
#define ZONES   4u
#define RECORDS 60u

struct record { /* one block */
    uint64_t number, check;
    char text[BLOCK - 16];
};

static uint64_t checksum(const struct record *r)
{
    uint64_t sum = r->number * 0x9e3779b97f4a7c15u;

    for (size_t i = 0; i < sizeof(r->text); i++)
        sum = sum * 31 + (unsigned char)r->text[i];
    return sum;
}

static void must(int rc, const char *what)
{
    if (rc < 0) {
        fprintf(stderr, "%s: %s\n", what, zqcow2_strerror(rc));
        exit(1);
    }
}

static struct zqcow2_image *open_on(struct zqcow2_simdisk *disk, uint32_t flags)
{
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_error err = {0, ""};
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    int rc;

    opt.flags = flags;
    must(zqcow2_simdisk_backend(disk, &be), "backend");
    rc = zqcow2_open(be, &opt, &img, &err);
    if (rc < 0)
        fprintf(stderr, "open: %s\n", err.text);
    must(rc, "open");
    return img;
}

/* ---- the program under test: appends records, zone after zone, and commits every fourth ---- */

/* promised[p]: how many records the program knows to be safe once the disk is at position p. */
static void write_log(struct zqcow2_simdisk *disk, uint64_t *promised, size_t room)
{
    struct zqcow2_image *img = open_on(disk, ZQCOW2_OPEN_RDWR);
    uint64_t position;

    for (uint64_t n = 0; n < RECORDS; n++) {
        struct record r = {.number = n};
        uint64_t off = n / (ZONE / BLOCK) * ZONE;

        snprintf(r.text, sizeof(r.text), "record number %d", (int)n);
        r.check = checksum(&r);
        must(zqcow2_append(img, &r, sizeof(r), &off, 0), "append");
        if (n % 4 != 3)
            continue;
        must(zqcow2_flush(img), "flush");
        position = zqcow2_simdisk_position(disk);
        if (position < room)
            promised[position] = n + 1;
    }
    must(zqcow2_close(img), "close");
}

/* How many records are there, from the first on? */
static uint64_t read_log(struct zqcow2_simdisk *disk)
{
    struct zqcow2_image *img = open_on(disk, 0);
    struct zqcow2_zone zones[ZONES];
    uint32_t nr = ZONES;
    uint64_t n = 0;

    must(zqcow2_zone_report(img, 0, zones, &nr), "report");
    for (uint32_t z = 0; z < nr; z++) {
        for (uint64_t off = zones[z].start; off < zones[z].write_pointer; off += BLOCK, n++) {
            struct record r;

            must(zqcow2_read(img, &r, sizeof(r), off), "read");
            if (r.number != n || r.check != checksum(&r)) {
                fprintf(stderr, "record %d is damaged\n", (int)n);
                exit(1);
            }
        }
    }
    must(zqcow2_close(img), "close");
    return n;
}

/* ---- the test of it ---- */

static struct zqcow2_simdisk *new_disk(void)
{
    struct zqcow2_create_options opt = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_simdisk *disk;
    struct zqcow2_backend *be;

    opt.virtual_size = ZONES * ZONE;
    opt.zone_size = ZONE;
    opt.cluster_size = 4096;
    must(zqcow2_simdisk_new(NULL, &disk), "disk");
    must(zqcow2_simdisk_backend(disk, &be), "backend");
    must(zqcow2_create(be, &opt, NULL), "create");
    zqcow2_backend_close(be);
    must(zqcow2_simdisk_record(disk), "record"); /* the log begins with a finished image */
    return disk;
}

int main(void)
{
    static uint64_t promised[4096];
    struct zqcow2_simdisk *disk = new_disk(), *after;
    struct zqcow2_simdisk_cut *cut;
    unsigned long states = 0, cuts = 0;
    uint64_t safe = 0;

    write_log(disk, promised, sizeof(promised) / sizeof(promised[0]));
    must(zqcow2_simdisk_cut_new(disk, &cut), "cut");
    for (uint64_t p = zqcow2_simdisk_cut_position(cut); zqcow2_simdisk_cut_seek(cut, p) == 0;
         p++, cuts++) {
        if (p < sizeof(promised) / sizeof(promised[0]) && promised[p] > safe)
            safe = promised[p];
        for (uint64_t k = 0; k < zqcow2_simdisk_cut_states(cut); k++, states++) {
            must(zqcow2_simdisk_cut_image(cut, k, &after), "image");
            if (read_log(after) < safe) {
                fprintf(stderr, "power lost at %d, outcome %d: a committed record is gone\n",
                        (int)p, (int)k);
                return 1;
            }
            zqcow2_simdisk_free(after);
        }
    }
    zqcow2_simdisk_cut_free(cut);
    zqcow2_simdisk_free(disk);
    printf("power lost at %lu instants with %lu outcomes: every committed record survived\n", cuts,
           states);
    return 0;
}
