/* SPDX-License-Identifier: MIT */
/*
 * A load of small files for power cuts: each step replaces one file of a ring by write, fsync and
 * rename, and is acknowledged once the directory is fsynced, too. What file a step makes follows
 * from the seed alone, so a later boot can compute what must be there from the last number it
 * knows.
 */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define RING 64u
#define SLACK \
    3u /* steps that may be durable beyond the last acknowledged one that was heard of \
        */
#define MAX_FILE (192u * 1024)

struct header {
    uint64_t magic, seed, step, bytes;
};
#define MAGIC 0x7a71677565737431u

static size_t step_bytes(uint64_t seed, uint64_t step)
{
    struct zg_rng r = zg_step_rng(seed, step);
    uint64_t kind = zg_below(&r, 10);

    return (kind < 7 ? 4096 * (1 + zg_below(&r, 8)) : 8 * (8 + zg_below(&r, MAX_FILE / 8 - 8)));
}

/* The file's bytes: a header, then the pattern. */
static void make_file(unsigned char *buf, uint64_t seed, uint64_t step)
{
    struct header h = {MAGIC, seed, step, step_bytes(seed, step)};

    memcpy(buf, &h, sizeof(h));
    zg_fill(buf + sizeof(h), h.bytes - sizeof(h), seed ^ step << 8, 0);
}

static void slot_name(char *out, size_t n, const char *dir, uint64_t step, const char *tail)
{
    snprintf(out, n, "%s/file%02llu%s", dir, (unsigned long long)(step % RING), tail);
}

static int write_step(const char *dir, int dir_fd, unsigned char *buf, uint64_t seed, uint64_t step)
{
    size_t len = step_bytes(seed, step);
    char tmp[512], name[512];
    int fd, rc;

    slot_name(tmp, sizeof(tmp), dir, step, ".new");
    slot_name(name, sizeof(name), dir, step, "");
    make_file(buf, seed, step);
    fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0)
        return -errno;
    rc = zg_pwrite(fd, buf, len, 0);
    /*
     * After XFS of Linux 7.3 has shut down, fsync of a folder still returns 0, whatever was lost.
     * fsync of a file fails then, so the last call shows that the one before it made the new name
     * durable.
     */
    if (!rc && (fsync(fd) || rename(tmp, name) || fsync(dir_fd) || fsync(fd)))
        rc = -errno;
    close(fd);
    return rc;
}

/* Files that nobody syncs, beside the ones that count: writeback always has something to do. */
static void noise(const char *dir, uint64_t seed)
{
    struct zg_rng r = {seed};
    unsigned char *buf = zg_buffer(1 << 20);
    char name[512];

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (uint64_t i = 0;; i++) {
        int fd;

        snprintf(name, sizeof(name), "%s/noise%llu", dir, (unsigned long long)zg_below(&r, 12));
        if (zg_below(&r, 3) == 0)
            unlink(name);
        fd = open(name, O_WRONLY | O_CREAT, 0644);
        if (fd >= 0) {
            zg_fill(buf, 1 << 20, i, 0);
            (void)zg_pwrite(fd, buf, 4096 * (1 + zg_below(&r, 255)), 0);
            close(fd);
        }
        usleep(60000);
    }
}

static int run_load(const char *dir, uint64_t seed, uint64_t from, uint64_t to, int ack_fd)
{
    int dir_fd = open(dir, O_RDONLY | O_DIRECTORY), rc = 0;
    unsigned char *buf = zg_buffer(MAX_FILE + 4096);
    pid_t child;

    if (dir_fd < 0) {
        perror(dir);
        return 2;
    }
    child = fork();
    if (!child)
        noise(dir, seed + from);
    for (uint64_t i = from; i <= to && !rc; i++) {
        rc = write_step(dir, dir_fd, buf, seed, i);
        if (!rc)
            zg_acknowledge(ack_fd, i);
    }
    if (child > 0)
        kill(child, SIGKILL);
    if (rc)
        printf("load ended: %s\n", strerror(-rc));
    return rc != 0;
}

/* A slot holds the newest acknowledged step of its own, or a newer one within the slack. */
static bool acceptable(uint64_t step, uint64_t slot, uint64_t last)
{
    uint64_t newest = last - (last + RING - slot) % RING; /* the slot's last acknowledged step */

    if (step % RING != slot)
        return false;
    return step == newest || (step > last && step <= last + SLACK);
}

static int verify_slot(const char *dir, unsigned char *buf, unsigned char *want, uint64_t seed,
                       uint64_t slot, uint64_t last)
{
    struct header h = {0};
    char name[512];
    ssize_t n;
    int fd;

    slot_name(name, sizeof(name), dir, slot, "");
    fd = open(name, O_RDONLY);
    if (fd < 0) {
        printf("%s: %s\n", name, strerror(errno));
        return 1;
    }
    n = read(fd, buf, MAX_FILE + 4096);
    close(fd);
    if (n >= (ssize_t)sizeof(h))
        memcpy(&h, buf, sizeof(h));
    if (h.magic != MAGIC || h.seed != seed || !acceptable(h.step, slot, last) ||
        n != (ssize_t)step_bytes(seed, h.step)) {
        printf("%s: %zd bytes of step %llu; the last durable step is %llu\n", name, n,
               (unsigned long long)h.step, (unsigned long long)last);
        return 1;
    }
    make_file(want, seed, h.step);
    if (memcmp(buf, want, (size_t)n) == 0)
        return 0;
    printf("%s: wrong data\n", name);
    return 1;
}

static int verify(const char *dir, uint64_t seed, uint64_t last)
{
    unsigned char *buf = zg_buffer(MAX_FILE + 4096), *want = zg_buffer(MAX_FILE + 4096);
    uint64_t first = last < RING ? 1 : last - RING + 1;
    int bad = 0;

    for (uint64_t i = first; i <= last; i++)
        bad += verify_slot(dir, buf, want, seed, i % RING, last);
    printf("%llu files checked, %d wrong\n", (unsigned long long)(last + 1 - first), bad);
    return bad != 0;
}

int zg_fsload(int argc, char **argv)
{
    if (argc == 5 && !strcmp(argv[0], "run"))
        return run_load(argv[1], zg_number(argv[2]), zg_number(argv[3]), zg_number(argv[4]), 1);
    if (argc == 4 && !strcmp(argv[0], "verify"))
        return verify(argv[1], zg_number(argv[2]), zg_number(argv[3]));
    fprintf(stderr, "usage: zqguest fsload run DIR SEED FROM TO | verify DIR SEED LAST\n");
    return 2;
}
