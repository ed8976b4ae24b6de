/* SPDX-License-Identifier: MIT */
/* What the parts of the guest's helper program share. */
#ifndef ZG_HELPER_H
#define ZG_HELPER_H

#include <linux/blkzoned.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define ZG_SECTOR 512u

/* Each takes what follows its name on the command line and returns the exit status. */
int zg_diff(int argc, char **argv);     /* two zoned devices in step, random operations */
int zg_io(int argc, char **argv);       /* one read or write with a pattern */
int zg_mkzonefs(int argc, char **argv); /* a zonefs super block */
int zg_fsload(int argc, char **argv);   /* files, written and fsynced, or verified */
int zg_follow(int argc, char **argv);   /* zones of a disk whose server is replaced */
int zg_relog(int argc, char **argv);    /* what a logged disk may hold after a power cut */
int zg_zload(int argc, char **argv);    /* the same on the sequential files of a zonefs */

/* ---- numbers ---- */

struct zg_rng {
    uint64_t state;
};
uint64_t zg_next(struct zg_rng *r);
uint64_t zg_below(struct zg_rng *r, uint64_t n); /* 0 .. n - 1 */
/* A generator for one step of a sequence, so that a later run can replay that step alone. */
struct zg_rng zg_step_rng(uint64_t seed, uint64_t step);
uint64_t zg_number(const char *text); /* decimal or 0x; ends the program on anything else */

/* ---- data ---- */

/* len is a multiple of 8; every 8 bytes encode where they belong. */
void zg_fill(void *buf, size_t len, uint64_t key, uint64_t pos);
/* The first wrong byte, or len. */
size_t zg_mismatch(const void *buf, size_t len, uint64_t key, uint64_t pos);
void *zg_buffer(size_t len); /* aligned for direct I/O; ends the program when there is none */
/* All of it, or -errno; a short count is -EIO. */
int zg_pwrite(int fd, const void *buf, size_t len, uint64_t off);
int zg_pread(int fd, void *buf, size_t len, uint64_t off);

/* ---- devices ---- */

struct zg_dev {
    const char *path;
    int fd; /* O_DIRECT */
    uint32_t nr_zones;
    uint64_t zone_sectors;
    struct blk_zone *zones; /* as of the last zg_report() */
};
int zg_open_dev(struct zg_dev *d, const char *path);
int zg_report(struct zg_dev *d);

/* ---- acknowledged steps ---- */

/* Says on fd that step i is durable, and returns only when the line has left the machine. */
void zg_acknowledge(int fd, uint64_t i);

#endif
