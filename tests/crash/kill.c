/* SPDX-License-Identifier: MIT */
/*
 * A real file and a real kill: a writer appends and flushes, is killed with SIGKILL at a random
 * moment, and what it had reported as safe must be in the file; again and again on one image.
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <zqcow2/backend.h>

#include "power_model.h"

#define ZONES     6u
#define ZONE_SIZE (256u << 10)
#define CAPACITY  (192u << 10)

/* What the writer reports before and after each step; in memory that outlives it. */
struct ledger {
    _Atomic uint32_t life[ZONES];      /* resets begun; odd numbers do not occur */
    _Atomic uint64_t submitted[ZONES]; /* bytes of this life */
    _Atomic uint64_t safe[ZONES];      /* bytes of this life that a flush made durable */
    _Atomic uint32_t safe_life[ZONES]; /* the reset that a flush made durable */
    _Atomic uint64_t steps;
    _Atomic int error;
};

static int die(const char *what, int rc)
{
    printf("kill: %s: %s\n", what, zqcow2_strerror(rc));
    return 1;
}

static uint64_t draw(uint64_t *rng)
{
    *rng ^= *rng << 13;
    *rng ^= *rng >> 7;
    return *rng ^= *rng << 17;
}

static int open_file(const char *path, bool rw, struct zqcow2_image **img, struct zqcow2_error *err)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;
    int rc = zqcow2_file_open(path, rw ? ZQCOW2_FILE_RDWR : 0, NULL, &be);

    o.flags = rw ? ZQCOW2_OPEN_RDWR : 0;
    if (rc == 0) {
        rc = zqcow2_open(be, &o, img, err);
        if (rc < 0)
            zqcow2_backend_close(be);
    }
    return rc;
}

static int create(const char *path)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_backend *be;
    int rc = zqcow2_file_open(path, ZQCOW2_FILE_RDWR | ZQCOW2_FILE_CREATE, NULL, &be);

    if (rc < 0)
        return rc;
    o.virtual_size = ZONES * ZONE_SIZE;
    o.zone_size = ZONE_SIZE;
    o.zone_capacity = CAPACITY;
    o.max_open_zones = 3;
    o.max_active_zones = 4;
    o.cluster_size = 4096;
    o.flags = ZQCOW2_CREATE_FORCE;
    rc = zqcow2_create(be, &o, NULL);
    zqcow2_backend_close(be);
    return rc;
}

static int append(struct ledger *l, struct zqcow2_image *img, uint32_t z, uint64_t len)
{
    static uint8_t buf[16 << 10];
    uint64_t off = z * (uint64_t)ZONE_SIZE, at = l->submitted[z];
    int rc;

    stamp(buf, len, z, l->life[z], off + at, 0);
    l->submitted[z] = at + len;
    rc = zqcow2_append(img, buf, len, &off, 0);
    if (rc < 0)
        l->submitted[z] = at;
    return rc;
}

static int flush(struct ledger *l, struct zqcow2_image *img)
{
    int rc = zqcow2_flush(img);

    for (uint32_t z = 0; rc == 0 && z < ZONES; z++) {
        l->safe_life[z] = l->life[z];
        l->safe[z] = l->submitted[z];
    }
    return rc;
}

/* Order matters: the new life is reported before it can happen, its safe length before it counts.
 */
static int reset(struct ledger *l, struct zqcow2_image *img, uint32_t z)
{
    l->submitted[z] = 0;
    l->safe[z] = 0;
    l->life[z]++;
    return zqcow2_zone_reset(img, z * (uint64_t)ZONE_SIZE, ZONE_SIZE, 0);
}

/* Never returns except on an error. */
static int writer(const char *path, struct ledger *l, uint64_t seed)
{
    struct zqcow2_error err = {0, ""};
    struct zqcow2_image *img;
    int rc = open_file(path, true, &img, &err);

    while (rc == 0) {
        uint32_t z = (uint32_t)(draw(&seed) % ZONES);
        uint64_t what = draw(&seed) % 16, len = (1 + draw(&seed) % 32) * SECTOR;

        if (l->submitted[z] + len > CAPACITY || what == 15)
            rc = reset(l, img, z);
        else if (what >= 12)
            rc = flush(l, img);
        else
            rc = append(l, img, z, len);
        if (rc == ZQCOW2_EZONE_ACTIVE)
            rc = 0;
        l->steps++;
    }
    l->error = rc;
    return 1;
}

static int zone_holds(struct ledger *l, struct zqcow2_image *img, uint32_t z,
                      const struct zqcow2_zone *r)
{
    static uint8_t got[ZONE_SIZE], want[ZONE_SIZE];
    uint64_t end = r->state == ZQCOW2_ZONE_FULL ? CAPACITY : r->write_pointer - r->start;
    uint64_t had = 0;
    uint64_t word = 0;
    uint32_t life;
    int rc = zqcow2_read(img, got, ZONE_SIZE, r->start);

    if (rc < 0)
        return die("read", rc);
    if (end)
        memcpy(&word, got + 8, sizeof(word));
    life = (uint32_t)word; /* of the stamp: the low half of its second word */
    memset(want, 0, sizeof(want));
    stamp(want, end, z, life, r->start, 0);
    if (memcmp(got, want, ZONE_SIZE)) {
        printf("kill: zone %u: data differs below or beyond +%llu\n", z, (unsigned long long)end);
        return 1;
    }
    had = l->safe[z];
    if (end ? life < l->safe_life[z] || life > l->life[z] : l->safe_life[z] == l->life[z] && had) {
        printf("kill: zone %u: life %u, safe %u, last %u\n", z, life, l->safe_life[z], l->life[z]);
        return 1;
    }
    if (end && life == l->safe_life[z] && life == l->life[z] && end < had) {
        printf("kill: zone %u: +%llu, but +%llu was safe\n", z, (unsigned long long)end,
               (unsigned long long)had);
        return 1;
    }
    l->submitted[z] = l->safe[z] = end;
    l->safe_life[z] = l->life[z] = end ? life : l->life[z] + 1;
    return 0;
}

static int check(const char *path, uint64_t *leaks)
{
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_error err = {0, ""};
    struct zqcow2_backend *be;
    int rc = zqcow2_file_open(path, 0, NULL, &be);

    if (rc == 0) {
        rc = zqcow2_check(be, NULL, &res, &err);
        zqcow2_backend_close(be);
    }
    if (rc < 0)
        return die(err.text, rc);
    *leaks = res.leaked_clusters;
    if (res.corruptions)
        printf("kill: check finds %llu corruptions\n", (unsigned long long)res.corruptions);
    return res.corruptions != 0;
}

static int after_kill(const char *path, struct ledger *l, uint64_t *leaky)
{
    struct zqcow2_zone zones[ZONES];
    struct zqcow2_error err = {0, ""};
    struct zqcow2_image *img;
    uint32_t nr = ZONES;
    uint64_t leaks;
    int rc, bad = check(path, &leaks);

    *leaky += leaks != 0;
    for (int rw = 0; !bad && rw < 2; rw++) {
        rc = open_file(path, rw, &img, &err);
        if (rc < 0)
            return die(err.text, rc);
        rc = zqcow2_zone_report(img, 0, zones, &nr);
        if (rc < 0)
            return die("report", rc);
        for (uint32_t z = 0; !rw && !bad && z < nr; z++)
            bad = zone_holds(l, img, z, &zones[z]);
        rc = zqcow2_close(img);
        if (rc < 0)
            return die("close", rc);
    }
    if (!bad)
        bad = check(path, &leaks);
    if (!bad && leaks) {
        printf("kill: %llu leaks left after a writable open\n", (unsigned long long)leaks);
        bad = 1;
    }
    return bad;
}

static int one_kill(const char *path, struct ledger *l, uint64_t seed, uint64_t *leaky)
{
    struct timespec t = {0, (long)(seed % 40000000) + 200000};
    uint64_t again = seed;
    int status;
    pid_t pid = fork();

    if (pid == 0)
        _exit(writer(path, l, draw(&again)));
    nanosleep(&t, NULL);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    if (WIFEXITED(status))
        return die("the writer stopped", l->error);
    return after_kill(path, l, leaky);
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "kill.qcow2";
    unsigned long kills = argc > 2 ? strtoul(argv[2], NULL, 10) : 300;
    uint64_t rng = argc > 3 ? strtoull(argv[3], NULL, 10) : (uint64_t)time(NULL), first, leaky = 0;
    struct ledger *l =
        mmap(NULL, sizeof(*l), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int rc = l == MAP_FAILED ? -errno : create(path);

    if (rc < 0)
        return die("create", rc);
    rng |= 1;
    first = rng;
    for (unsigned long i = 0; i < kills; i++) {
        if (one_kill(path, l, draw(&rng), &leaky)) {
            printf("kill %s %lu %llu  # failed at kill %lu; the file is kept\n", path, kills,
                   (unsigned long long)first, i);
            return 1;
        }
    }
    printf("kills: %lu, nothing flushed was lost; %llu left leaks, all reclaimed; %llu steps\n",
           kills, (unsigned long long)leaky, (unsigned long long)l->steps);
    unlink(path);
    return 0;
}
