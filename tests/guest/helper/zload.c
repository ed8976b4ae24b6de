/* SPDX-License-Identifier: MIT */
/*
 * A load for the sequential files of a zonefs, one file per zone: each step appends a record to one
 * zone, or truncates (resets) a zone without room for it first, then fsyncs. All follows from the
 * seed, so that what must be there after a power cut can be computed from the last step heard of.
 */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ZONES      6u
#define MAX_RECORD (128u * 1024)
#define SLACK      3u

struct zone {
    uint64_t life, size;
};

struct plan {
    uint64_t seed, capacity;
    struct zone zones[ZONES];
};

struct step {
    unsigned zone;
    size_t bytes;
    bool reset;
};

/* What step i does to a plan that has seen the steps before it; the plan then has seen it, too. */
static struct step plan_step(struct plan *p, uint64_t i)
{
    struct zg_rng r = zg_step_rng(p->seed, i);
    struct step s = {.zone = (unsigned)zg_below(&r, ZONES)};
    struct zone *z = &p->zones[s.zone];

    s.bytes = 4096 * (1 + zg_below(&r, MAX_RECORD / 4096));
    s.reset = z->size + s.bytes > p->capacity || zg_below(&r, 40) == 0;
    if (s.reset) {
        z->life++;
        z->size = 0;
    }
    z->size += s.bytes;
    return s;
}

static uint64_t key_of(const struct plan *p, unsigned zone)
{
    return p->seed + zone * 1000 + p->zones[zone].life * 10000;
}

static int open_zone(const char *dir, unsigned zone, int flags)
{
    char name[512];

    snprintf(name, sizeof(name), "%s/%u", dir, zone);
    return open(name, flags);
}

static uint64_t zone_capacity(const char *dir)
{
    char name[512];
    struct stat st;

    snprintf(name, sizeof(name), "%s/0", dir); /* zonefs: st_blocks is the zone's capacity */
    if (stat(name, &st)) {
        perror(name);
        exit(2);
    }
    return (uint64_t)st.st_blocks * ZG_SECTOR;
}

/* Is all of the zone's file, up to size, the pattern of this life? */
static bool holds(const struct plan *p, unsigned zone, int fd, uint64_t size, void *buf)
{
    for (uint64_t at = 0; at < size; at += 4096) {
        size_t n = size - at < 4096 ? (size_t)(size - at) : 4096;

        if (zg_pread(fd, buf, n, at) || zg_mismatch(buf, n, key_of(p, zone), at) != n)
            return false;
    }
    return true;
}

/* Does a zone file have this size, all of it of the plan's life? */
static bool is_at(const char *dir, const struct plan *p, unsigned zone, uint64_t size, void *buf)
{
    int fd = open_zone(dir, zone, O_RDONLY | O_DIRECT);
    struct stat st;
    bool same =
        fd >= 0 && !fstat(fd, &st) && (uint64_t)st.st_size == size && holds(p, zone, fd, size, buf);

    if (fd >= 0)
        close(fd);
    return same;
}

/* The plan has seen the step. A power cut may have left a part of it, which is then completed. */
static int do_step(const char *dir, const struct plan *p, struct step s, void *buf)
{
    uint64_t end = p->zones[s.zone].size, at = end - s.bytes;
    int fd = open_zone(dir, s.zone, O_RDWR | O_DIRECT), rc = 0;
    struct stat st;

    if (fd < 0 || fstat(fd, &st))
        return -errno;
    if ((uint64_t)st.st_size > at && (uint64_t)st.st_size < end &&
        holds(p, s.zone, fd, (uint64_t)st.st_size, buf))
        at = (uint64_t)st.st_size;
    else if (s.reset && ftruncate(fd, 0))
        rc = -errno;
    zg_fill(buf, end - at, key_of(p, s.zone), at);
    if (!rc)
        rc = zg_pwrite(fd, buf, end - at, at);
    if (!rc && fsync(fd))
        rc = -errno;
    close(fd);
    return rc;
}

/*
 * The last step that is there as a whole: one step is under way at a time, so it is at most a few
 * beyond the last one that was heard of. *p is the plan after `last`, and after the result then.
 */
static uint64_t last_whole_step(const char *dir, struct plan *p, uint64_t last, void *buf)
{
    struct plan after[SLACK + 1];
    struct step step[SLACK + 1];

    after[0] = *p;
    for (unsigned i = 1; i <= SLACK; i++) {
        after[i] = after[i - 1];
        step[i] = plan_step(&after[i], last + i);
    }
    for (unsigned i = SLACK; i > 0; i--) {
        unsigned zone = step[i].zone;

        if (is_at(dir, &after[i], zone, after[i].zones[zone].size, buf)) {
            *p = after[i];
            return last + i;
        }
    }
    return last;
}

static int run_load(const char *dir, uint64_t seed, uint64_t from, uint64_t to)
{
    struct plan p = {.seed = seed, .capacity = zone_capacity(dir)};
    void *buf = zg_buffer(MAX_RECORD);
    int rc = 0;

    for (uint64_t i = 1; i < from; i++)
        plan_step(&p, i);
    from = last_whole_step(dir, &p, from - 1, buf) + 1;
    for (uint64_t i = from; i <= to && !rc; i++) {
        struct step s = plan_step(&p, i);

        rc = do_step(dir, &p, s, buf);
        if (!rc)
            zg_acknowledge(1, i);
    }
    if (rc)
        printf("load ended: %s\n", strerror(-rc));
    return rc != 0;
}

/*
 * The zone is as the plan says after one of the steps last .. last + SLACK, or is on the way to it:
 * a prefix of an append, or empty in a new life.
 */
static int verify_zone(const char *dir, const struct plan *base, unsigned zone, uint64_t last)
{
    int fd = open_zone(dir, zone, O_RDONLY | O_DIRECT);
    struct plan p = *base;
    void *buf = zg_buffer(4096);
    struct stat st;
    bool good = false;

    if (fd < 0 || fstat(fd, &st)) {
        printf("zone file %u: %s\n", zone, strerror(errno));
        return 1;
    }
    for (uint64_t i = last; i <= last + SLACK && !good; i++) {
        uint64_t life = p.zones[zone].life, floor = p.zones[zone].size;

        if (i > last) {
            plan_step(&p, i);
            if (p.zones[zone].life != life)
                floor = 0;
        }
        good = (uint64_t)st.st_size >= floor && (uint64_t)st.st_size <= p.zones[zone].size &&
               holds(&p, zone, fd, (uint64_t)st.st_size, buf);
    }
    close(fd);
    if (!good)
        printf("zone file %u: %lld bytes, expected %llu of life %llu after step %llu\n", zone,
               (long long)st.st_size, (unsigned long long)base->zones[zone].size,
               (unsigned long long)base->zones[zone].life, (unsigned long long)last);
    return !good;
}

static int verify(const char *dir, uint64_t seed, uint64_t last)
{
    struct plan p = {.seed = seed, .capacity = zone_capacity(dir)};
    int bad = 0;

    for (uint64_t i = 1; i <= last; i++)
        plan_step(&p, i);
    for (unsigned z = 0; z < ZONES; z++)
        bad += verify_zone(dir, &p, z, last);
    printf("%u zone files checked, %d wrong\n", ZONES, bad);
    return bad != 0;
}

int zg_zload(int argc, char **argv)
{
    if (argc == 5 && !strcmp(argv[0], "run"))
        return run_load(argv[1], zg_number(argv[2]), zg_number(argv[3]), zg_number(argv[4]));
    if (argc == 4 && !strcmp(argv[0], "verify"))
        return verify(argv[1], zg_number(argv[2]), zg_number(argv[3]));
    fprintf(stderr, "usage: zqguest zload run DIR SEED FROM TO | verify DIR SEED LAST\n");
    return 2;
}
