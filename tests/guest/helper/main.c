/* SPDX-License-Identifier: MIT */
/* The guest's helper program: one static binary, its parts by name. */
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

uint64_t zg_next(struct zg_rng *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u; /* splitmix64 */

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint64_t zg_below(struct zg_rng *r, uint64_t n)
{
    return zg_next(r) % n;
}

struct zg_rng zg_step_rng(uint64_t seed, uint64_t step)
{
    struct zg_rng r = {seed * 0x2545f4914f6cdd1du + step};

    zg_next(&r);
    return r;
}

uint64_t zg_number(const char *text)
{
    char *end;
    uint64_t v = strtoull(text, &end, 0);

    if (end == text || *end) {
        fprintf(stderr, "zqguest: not a number: %s\n", text);
        exit(2);
    }
    return v;
}

static uint64_t word(uint64_t key, uint64_t at)
{
    return (key << 40 ^ at) * 0x9e3779b97f4a7c15u ^ key;
}

void zg_fill(void *buf, size_t len, uint64_t key, uint64_t pos)
{
    uint64_t *p = buf;

    for (size_t i = 0; i < len / 8; i++)
        p[i] = word(key, pos + i * 8);
}

size_t zg_mismatch(const void *buf, size_t len, uint64_t key, uint64_t pos)
{
    const uint64_t *p = buf;

    for (size_t i = 0; i < len / 8; i++)
        if (p[i] != word(key, pos + i * 8))
            return i * 8;
    return len;
}

void *zg_buffer(size_t len)
{
    void *p;

    if (posix_memalign(&p, 4096, len)) {
        fprintf(stderr, "zqguest: out of memory\n");
        exit(2);
    }
    memset(p, 0, len);
    return p;
}

int zg_pwrite(int fd, const void *buf, size_t len, uint64_t off)
{
    ssize_t n = pwrite(fd, buf, len, (off_t)off);

    return n < 0 ? -errno : (size_t)n == len ? 0 : -EIO;
}

int zg_pread(int fd, void *buf, size_t len, uint64_t off)
{
    ssize_t n = pread(fd, buf, len, (off_t)off);

    return n < 0 ? -errno : (size_t)n == len ? 0 : -EIO;
}

int zg_open_dev(struct zg_dev *d, const char *path)
{
    uint32_t zs = 0, nr = 0;

    d->path = path;
    d->fd = open(path, O_RDWR | O_DIRECT);
    if (d->fd < 0 || ioctl(d->fd, BLKGETZONESZ, &zs) || ioctl(d->fd, BLKGETNRZONES, &nr) || !nr) {
        fprintf(stderr, "zqguest: %s: %s\n", path, strerror(errno));
        return -1;
    }
    d->zone_sectors = zs;
    d->nr_zones = nr;
    d->zones = calloc(nr, sizeof(*d->zones));
    return d->zones ? zg_report(d) : -1;
}

int zg_report(struct zg_dev *d)
{
    size_t room = sizeof(struct blk_zone_report) + d->nr_zones * sizeof(struct blk_zone);
    struct blk_zone_report *rep = calloc(1, room);
    int rc = -1;

    if (rep) {
        rep->nr_zones = d->nr_zones;
        rc = ioctl(d->fd, BLKREPORTZONE, rep);
        if (!rc && rep->nr_zones != d->nr_zones) {
            fprintf(stderr, "zqguest: %s: report of %u zones, not %u\n", d->path, rep->nr_zones,
                    d->nr_zones);
            rc = -1;
        }
        if (!rc)
            memcpy(d->zones, rep->zones, d->nr_zones * sizeof(struct blk_zone));
        free(rep);
    }
    return rc;
}

void zg_acknowledge(int fd, uint64_t i)
{
    char line[32];
    int n = snprintf(line, sizeof(line), "SYNCED %llu\n", (unsigned long long)i);

    if (write(fd, line, (size_t)n) != n)
        exit(2);
    if (isatty(fd))
        tcdrain(fd);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(int, char **);
    } parts[] = {{"diff", zg_diff},     {"io", zg_io},         {"mkzonefs", zg_mkzonefs},
                 {"fsload", zg_fsload}, {"follow", zg_follow}, {"zload", zg_zload},
                 {"relog", zg_relog}};

    for (size_t i = 0; argc > 1 && i < sizeof(parts) / sizeof(parts[0]); i++)
        if (!strcmp(argv[1], parts[i].name))
            return parts[i].run(argc - 2, argv + 2);
    fprintf(stderr, "usage: zqguest diff|io|mkzonefs|fsload|follow|zload|relog ARGUMENTS\n");
    return 2;
}
