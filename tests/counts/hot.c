/* SPDX-License-Identifier: MIT */
/*
 * The blocking hot paths over a backend that does nothing, for counting their instructions:
 * hot append|read N. What is below the library costs a handful of instructions here.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zqcow2/backend.h>

#define MiB(n) ((uint64_t)(n) << 20)
#define UNIT   4096u

/* Keeps metadata, forgets data. */
struct null {
    uint64_t length;
    uint8_t *head;
};

#define KEPT MiB(1)

static int null_length(void *self, uint64_t *bytes)
{
    *bytes = ((struct null *)self)->length;
    return 0;
}

static int null_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct null *n = self;

    if (off >= KEPT)
        return 0;
    for (int i = 0; i < cnt; off += iov[i++].iov_len)
        memcpy(iov[i].iov_base, n->head + off, iov[i].iov_len);
    return 0;
}

static int null_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct null *n = self;

    if (off >= KEPT)
        return 0;
    for (int i = 0; i < cnt; off += iov[i++].iov_len)
        memcpy(n->head + off, iov[i].iov_base, iov[i].iov_len);
    return 0;
}

static int null_flush(void *self)
{
    (void)self;
    return 0;
}

static int null_truncate(void *self, uint64_t bytes)
{
    ((struct null *)self)->length = bytes;
    return 0;
}

static const struct zqcow2_backend_ops null_ops = {
    .size = sizeof(null_ops), .name = "null", .length = null_length, .readv = null_readv,
    .writev = null_writev, .flush = null_flush, .truncate = null_truncate,
};

static int die(const char *what, int rc)
{
    fprintf(stderr, "hot: %s: %s\n", what, zqcow2_strerror(rc));
    return 1;
}

static struct zqcow2_image *begin(struct null *n)
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;
    struct zqcow2_image *img = NULL;

    n->length = 0;
    n->head = calloc(1, KEPT + MiB(2));
    c.virtual_size = MiB(1024);
    c.zone_size = MiB(256);
    c.max_open_zones = 2;
    o.flags = ZQCOW2_OPEN_RDWR;
    o.extent_bytes = MiB(256);
    if (zqcow2_backend_new(&null_ops, n, NULL, &be) || zqcow2_create(be, &c, NULL) ||
        zqcow2_open(be, &o, &img, NULL))
        return NULL;
    return img;
}

int main(int argc, char **argv)
{
    static char buf[UNIT];
    unsigned nr = argc == 3 ? (unsigned)atoi(argv[2]) : 0;
    struct null null;
    struct zqcow2_image *img = begin(&null);
    uint64_t off = 0;
    int rc = img ? 0 : -1;

    if (argc != 3 || !img)
        return die("usage, or open", rc);
    /* The zone is mapped and its mapping known before anything is counted. */
    for (uint64_t at = MiB(256); rc == 0 && at < MiB(320); at += MiB(1))
        rc = zqcow2_write_zeroes(img, MiB(1), at, 0);
    if (rc == 0)
        rc = zqcow2_write(img, buf, UNIT, 0, 0);
    for (unsigned i = 0; rc == 0 && i < nr; i++) {
        if (!strcmp(argv[1], "append")) {
            off = 0;
            rc = zqcow2_append(img, buf, UNIT, &off, 0);
        } else {
            rc = zqcow2_read(img, buf, UNIT, MiB(256) + (uint64_t)i * 7919 % 16384 * UNIT);
        }
    }
    if (rc == 0)
        rc = zqcow2_close(img);
    free(null.head);
    return rc < 0 ? die(argv[1], rc) : 0;
}
