/* SPDX-License-Identifier: MIT */
/* What is done once in a while: open and report of very many zones; reset of a full zone. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "bench.h"

#define MANY 65536u

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static double median(double *v, unsigned n)
{
    qsort(v, n, sizeof(*v), compare);
    return v[n / 2];
}

/* ---- open and report ---- */

static void make_many(const char *path)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_backend *be;
    int rc;

    unlink(path);
    rc = zqcow2_file_open(path, ZQCOW2_FILE_RDWR | ZQCOW2_FILE_CREATE, NULL, &be);
    o.virtual_size = MiB(16) * MANY;
    o.zone_size = MiB(16);
    if (rc == 0)
        rc = zqcow2_create(be, &o, NULL);
    if (rc < 0)
        bench_die("create", rc);
    zqcow2_backend_close(be);
}

/* Some zones in use, so that the table is not all zeros. */
static void use_some(const char *path)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    int rc = zqcow2_file_open(path, ZQCOW2_FILE_RDWR, NULL, &be);

    o.flags = ZQCOW2_OPEN_RDWR;
    o.extent_bytes = KiB(64);
    if (rc == 0)
        rc = zqcow2_open(be, &o, &img, NULL);
    for (uint32_t i = 0; rc == 0 && i < MANY; i += 64)
        rc = zqcow2_write(img, bench_buffer(0, 4096), 4096, MiB(16) * i, 0);
    if (rc == 0)
        rc = zqcow2_close(img);
    if (rc < 0)
        bench_die("many zones", rc);
}

void once_open_report(const char *dir, unsigned runs, double *open_us, double *report_us)
{
    struct zqcow2_zone *zones = malloc(MANY * sizeof(*zones));
    double *opens = calloc(runs, sizeof(double)), *reports = calloc(runs, sizeof(double));
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    char path[600];

    memset(zones, 1, MANY * sizeof(*zones));
    o.flags = ZQCOW2_OPEN_RDWR;
    strcpy(path, dir);
    strcat(path, "/many.qcow2");
    make_many(path);
    use_some(path);
    for (unsigned i = 0; i < runs; i++) {
        struct zqcow2_backend *be;
        struct zqcow2_image *img;
        uint32_t nr = MANY;
        double start = bench_now(), opened;
        int rc = zqcow2_file_open(path, ZQCOW2_FILE_RDWR, NULL, &be);

        if (rc == 0)
            rc = zqcow2_open(be, &o, &img, NULL);
        opened = bench_now();
        if (rc == 0)
            rc = zqcow2_zone_report(img, 0, zones, &nr);
        reports[i] = 1e6 * (bench_now() - opened);
        opens[i] = 1e6 * (opened - start);
        if (rc < 0 || nr != MANY)
            bench_die("report", rc);
        zqcow2_close(img);
    }
    *open_us = median(opens, runs);
    *report_us = median(reports, runs);
    unlink(path);
    free(zones);
    free(opens);
    free(reports);
}

/* ---- reset: a backend that keeps the time spent below the library ---- */

struct clocked {
    struct zqcow2_backend *under;
    int fd;
    double spent;
    unsigned calls;
};

static int clock_out(struct clocked *c, double start, int rc)
{
    c->spent += bench_now() - start;
    c->calls++;
    return rc;
}

static int clocked_length(void *self, uint64_t *bytes)
{
    return zqcow2_backend_length(((struct clocked *)self)->under, bytes);
}

static int each(struct clocked *c, const struct iovec *iov, int cnt, uint64_t off, bool write)
{
    int rc = 0;

    for (int i = 0; i < cnt && rc == 0; i++) {
        rc = write ? zqcow2_backend_write(c->under, iov[i].iov_base, iov[i].iov_len, off) :
                     zqcow2_backend_read(c->under, iov[i].iov_base, iov[i].iov_len, off);
        off += iov[i].iov_len;
    }
    return rc;
}

static int clocked_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    double start = bench_now();

    return clock_out(self, start, each(self, iov, cnt, off, false));
}

static int clocked_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    double start = bench_now();

    return clock_out(self, start, each(self, iov, cnt, off, true));
}

static int clocked_flush(void *self)
{
    double start = bench_now();

    return clock_out(self, start, fdatasync(((struct clocked *)self)->fd));
}

static int clocked_truncate(void *self, uint64_t bytes)
{
    double start = bench_now();

    return clock_out(self, start, ftruncate(((struct clocked *)self)->fd, (off_t)bytes));
}

static int clocked_discard(void *self, uint64_t off, uint64_t len)
{
    double start = bench_now();
    int rc = fallocate(((struct clocked *)self)->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                       (off_t)off, (off_t)len) < 0 ?
                 -errno :
                 0;

    return clock_out(self, start, rc);
}

static const struct zqcow2_backend_ops clocked_ops = {
    .size = sizeof(clocked_ops),
    .name = "clocked",
    .length = clocked_length,
    .readv = clocked_readv,
    .writev = clocked_writev,
    .flush = clocked_flush,
    .truncate = clocked_truncate,
    .discard = clocked_discard,
};

static struct zqcow2_image *open_clocked(struct clocked *c)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options oo = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;
    struct zqcow2_image *img = NULL;
    int rc = zqcow2_backend_new(&clocked_ops, c, NULL, &be);

    o.virtual_size = 2 * ZONE_BYTES;
    o.zone_size = ZONE_BYTES;
    oo.flags = ZQCOW2_OPEN_RDWR;
    if (rc == 0)
        rc = zqcow2_create(be, &o, NULL);
    if (rc == 0)
        rc = zqcow2_open(be, &oo, &img, NULL);
    if (rc < 0)
        bench_die("open", rc);
    return img;
}

void once_reset(const char *dir, unsigned runs, double *own_us, double *host_us, unsigned *calls)
{
    double *own = calloc(runs, sizeof(double)), *host = calloc(runs, sizeof(double));
    struct clocked c = {.fd = -1};
    struct zqcow2_image *img;
    char path[600];
    int rc;

    strcpy(path, dir);
    strcat(path, "/reset.qcow2");
    unlink(path);
    rc = zqcow2_file_open(path, ZQCOW2_FILE_RDWR | ZQCOW2_FILE_CREATE, NULL, &c.under);
    c.fd = open(path, O_RDWR);
    if (rc < 0 || c.fd < 0)
        bench_die(path, rc);
    img = open_clocked(&c);
    for (unsigned i = 0; i < runs; i++) {
        double start;

        for (uint64_t at = 0; rc == 0 && at < ZONE_BYTES; at += MiB(1))
            rc = zqcow2_write(img, bench_buffer(0, MiB(1)), MiB(1), at, 0);
        if (rc == 0)
            rc = zqcow2_flush(img);
        c.spent = 0;
        c.calls = 0;
        start = bench_now();
        if (rc == 0)
            rc = zqcow2_zone_reset(img, 0, ZONE_BYTES, 0);
        if (rc == 0)
            rc = zqcow2_flush(img);
        own[i] = 1e6 * (bench_now() - start - c.spent);
        host[i] = 1e6 * c.spent;
        if (rc < 0)
            bench_die("reset", rc);
    }
    *calls = c.calls;
    *own_us = median(own, runs);
    *host_us = median(host, runs);
    zqcow2_close(img);
    zqcow2_backend_close(c.under);
    close(c.fd);
    unlink(path);
    free(own);
    free(host);
}
