/* SPDX-License-Identifier: MIT */
/*
 * Writes to the zones of a disk whose server is killed and replaced meanwhile. After an error it
 * reads the write pointer and goes on there. Nothing that was durable may be missing, no flush may
 * succeed while changes before it are lost, and all data below a write pointer must be right.
 */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define RECORD (64u * 1024)
#define ZONES  16u

struct follow {
    struct zg_dev dev;
    uint64_t first, nr, seed; /* its own zones */
    bool lazy;                /* flushes now and then, not with each write */
    struct {
        uint64_t at, durable, life; /* bytes, bytes, resets */
    } zones[ZONES];
    unsigned records, resets, errors, lost, failed_flushes;
    void *buf;
};

static int wrong(const struct follow *f, uint64_t z, const char *what)
{
    printf("zone %llu: %s: at %llu, durable %llu, life %llu\n", (unsigned long long)(f->first + z),
           what, (unsigned long long)f->zones[z].at, (unsigned long long)f->zones[z].durable,
           (unsigned long long)f->zones[z].life);
    return -EUCLEAN;
}

static uint64_t start(const struct follow *f, uint64_t z)
{
    return (f->first + z) * f->dev.zone_sectors * ZG_SECTOR;
}

static uint64_t key(const struct follow *f, uint64_t z)
{
    return f->seed + (f->first + z) * 1000 + f->zones[z].life * 100000;
}

static uint64_t capacity(const struct follow *f, uint64_t z)
{
    return f->dev.zones[f->first + z].capacity * ZG_SECTOR;
}

static uint64_t pointer(const struct follow *f, uint64_t z)
{
    const struct blk_zone *b = &f->dev.zones[f->first + z];

    return b->cond == BLK_ZONE_COND_FULL ? capacity(f, z) : (b->wp - b->start) * ZG_SECTOR;
}

/* A report may be in flight when the server is killed, and so may a read. */
static int report(struct follow *f)
{
    for (int tries = 50; tries; tries--) {
        if (!zg_report(&f->dev))
            return 0;
        usleep(100 * 1000);
    }
    return -EIO;
}

static int read_record(struct follow *f, uint64_t n, uint64_t at)
{
    int rc = -1;

    for (int tries = 50; tries && rc; tries--) {
        rc = zg_pread(f->dev.fd, f->buf, n, at);
        if (rc)
            usleep(100 * 1000);
    }
    return rc;
}

/* After an error: `more` bytes were in flight and may have landed. */
static int look_again(struct follow *f, uint64_t z, uint64_t more)
{
    uint64_t now;

    if (report(f))
        return -EIO;
    now = pointer(f, z);
    if (now < f->zones[z].durable)
        return wrong(f, z, "durable data is missing");
    if (now > f->zones[z].at + more)
        return wrong(f, z, "more than was ever written");
    f->lost += now < f->zones[z].at;
    f->zones[z].at = now;
    return 0;
}

/* One flush reports a loss, of all zones. */
static int look_at_all(struct follow *f, uint64_t except)
{
    int rc = 0;

    f->failed_flushes++;
    for (uint64_t z = 0; z < f->nr && !rc; z++)
        rc = z == except ? 0 : look_again(f, z, 0);
    return rc;
}

/* Each change was answered before: after a flush that succeeds it must be there. */
static int all_durable(struct follow *f)
{
    if (report(f))
        return -EIO;
    for (uint64_t z = 0; z < f->nr; z++) {
        if (pointer(f, z) != f->zones[z].at)
            return wrong(f, z, "a flush succeeded, but data before it is lost");
        f->zones[z].durable = f->zones[z].at;
    }
    return 0;
}

static int flush(struct follow *f)
{
    return fsync(f->dev.fd) ? look_at_all(f, UINT64_MAX) : all_durable(f);
}

/* Until a flush succeeds. *lost: one failed. */
static int flush_at_last(struct follow *f, uint64_t except, bool *lost)
{
    while (fsync(f->dev.fd)) {
        int rc = f->failed_flushes < 10000 ? look_at_all(f, except) : -EIO;

        if (rc)
            return rc;
        *lost = true;
    }
    return 0;
}

/* Durable in any case, so that no later kill brings an older life back. */
static int reset(struct follow *f, uint64_t z)
{
    struct blk_zone_range range = {start(f, z) / ZG_SECTOR, f->dev.zone_sectors};
    bool lost = ioctl(f->dev.fd, BLKRESETZONE, &range) != 0;
    int rc;

    f->errors += lost;
    rc = flush_at_last(f, z, &lost);
    if (rc)
        return rc;
    if (report(f))
        return -EIO;
    if (pointer(f, z) && !lost)
        return wrong(f, z, "a reset was flushed and is lost");
    if (pointer(f, z))
        return look_again(f, z, 0);
    f->resets++;
    f->zones[z].life++;
    f->zones[z].at = f->zones[z].durable = 0;
    return 0;
}

static int write_record(struct follow *f, uint64_t z, uint64_t n)
{
    uint64_t at = start(f, z) + f->zones[z].at;

    zg_fill(f->buf, n, key(f, z), at);
    if (zg_pwrite(f->dev.fd, f->buf, n, at)) {
        f->errors++;
        return look_again(f, z, n);
    }
    f->records++;
    f->zones[z].at += n;
    if (!f->lazy)
        f->zones[z].durable = f->zones[z].at;
    return 0;
}

static int step(struct follow *f, uint64_t i)
{
    struct zg_rng r = zg_step_rng(f->seed, i);
    uint64_t z = zg_below(&r, f->nr), n = 4096 * (1 + zg_below(&r, RECORD / 4096));
    uint64_t room = capacity(f, z) - f->zones[z].at;

    if (f->lazy && i % 16 == 15)
        return flush(f);
    if (!room)
        return reset(f, z);
    return write_record(f, z, n < room ? n : room);
}

static int read_back(struct follow *f, uint64_t z)
{
    uint64_t end = f->zones[z].at;

    for (uint64_t at = 0; at < end; at += RECORD) {
        uint64_t n = end - at < RECORD ? end - at : RECORD, bad;

        if (read_record(f, n, start(f, z) + at))
            return wrong(f, z, "cannot be read");
        bad = zg_mismatch(f->buf, n, key(f, z), start(f, z) + at);
        if (bad != n) {
            printf("zone %llu: wrong data at %llu of it\n", (unsigned long long)(f->first + z),
                   (unsigned long long)(at + bad));
            return wrong(f, z, "has wrong data");
        }
    }
    return 0;
}

/* A kill that comes between the last flush and the reads takes back what no flush covered. */
static int read_all_back(struct follow *f)
{
    bool lost = false;
    int rc = flush_at_last(f, UINT64_MAX, &lost);

    if (!rc)
        rc = all_durable(f);
    for (uint64_t z = 0; z < f->nr && !rc; z++)
        rc = read_back(f, z);
    return rc;
}

static int begin(struct follow *f, char **argv)
{
    if (zg_open_dev(&f->dev, argv[0]))
        return 2;
    close(f->dev.fd);
    f->first = zg_number(argv[1]);
    f->nr = zg_number(argv[2]);
    f->seed = zg_number(argv[4]);
    f->lazy = !strcmp(argv[5], "lazy");
    f->dev.fd = open(argv[0], O_RDWR | O_DIRECT | (f->lazy ? 0 : O_DSYNC));
    f->buf = zg_buffer(RECORD);
    return f->dev.fd < 0 || f->nr > ZONES || f->first + f->nr > f->dev.nr_zones ? 2 : 0;
}

int zg_follow(int argc, char **argv)
{
    struct follow f = {.records = 0};
    struct timespec until, now;
    int rc = 0;

    if (argc != 6) {
        fprintf(stderr, "usage: zqguest follow DEV FIRST_ZONE ZONES SECONDS SEED lazy|sync\n");
        return 2;
    }
    if (begin(&f, argv))
        return 2;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)zg_number(argv[3]);
    for (uint64_t i = 0; !rc; i++) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec >= until.tv_sec)
            break;
        rc = step(&f, i);
    }
    if (!rc)
        rc = read_all_back(&f);
    printf("follow: seed %llu: %u records, %u resets, %u errors, %u zones went back, "
           "%u flushes failed, %d wrong\n",
           (unsigned long long)f.seed, f.records, f.resets, f.errors, f.lost, f.failed_flushes,
           rc != 0);
    return rc ? 1 : 0;
}
