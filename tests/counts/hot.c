/* SPDX-License-Identifier: MIT */
/*
 * The hot paths over a backend that does nothing, for counting their instructions: hot KIND N does
 * N requests of 4 KiB. What is below the library costs a handful of instructions here.
 *   append read   blocking, in a zone whose mapping is known
 *   first         blocking, each the first write to its cluster of a conventional zone
 *   over          blocking, where such a zone has data already
 *   zone          blocking, each the first write to a zone of 64 MiB
 *   drain         the same, and then one drain of all of them
 *   read0 .. read9  blocking, in an overlay, where the source so many levels below has the data and
 *                 all levels above it have other data of the same slices
 *   qappend qread as the first two, 32 at a time in a queue, over an asynchronous backend
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zqcow2/backend.h>
#include <zqcow2/queue.h>

#define MiB(n) ((uint64_t)(n) << 20)
#define UNIT   4096u
#define DEPTH  32u
#define ZONE   MiB(256)
#define SMALL  MiB(64)
#define SLICE  MiB(32) /* what 4 KiB of an L2 table map */

/* Keeps metadata, forgets data. */
struct null {
    uint64_t length;
    uint8_t *head;
};

#define KEPT MiB(2)

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

/* What was never written is zeros. */
static int null_allocate(void *self, uint64_t off, uint64_t len)
{
    (void)self;
    (void)off;
    (void)len;
    return 0;
}

static const struct zqcow2_backend_ops null_ops = {
    .size = sizeof(null_ops),
    .name = "null",
    .length = null_length,
    .readv = null_readv,
    .writev = null_writev,
    .flush = null_flush,
    .truncate = null_truncate,
};

/* Data is done at once; metadata is left to the blocking functions. */
static int null_submit(void *self, struct zqcow2_io *io)
{
    (void)self;
    if (io->kind > ZQCOW2_IO_WRITE || io->offset < KEPT)
        return -EOPNOTSUPP;
    zqcow2_io_done(io, 0);
    return 0;
}

static int die(const char *what, int rc)
{
    fprintf(stderr, "hot: %s: %s\n", what, zqcow2_strerror(rc));
    return 1;
}

static bool begins_zones(const char *kind)
{
    return !strcmp(kind, "zone") || !strcmp(kind, "drain");
}

/* Zone 0 is conventional, but where all are to be written once. */
static int begin(struct null *n, const char *kind, struct zqcow2_image **img)
{
    bool many = begins_zones(kind);
    struct zqcow2_backend_ops ops = null_ops;
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;
    int rc;

    ops.submit = kind[0] == 'q' ? null_submit : NULL;
    ops.allocate = many ? null_allocate : NULL;
    rc = zqcow2_backend_new(&ops, n, NULL, &be);
    n->length = 0;
    n->head = calloc(1, KEPT + MiB(2));
    c.virtual_size = many ? 64 * ZONE : 4 * ZONE;
    c.zone_size = many ? SMALL : ZONE;
    c.conventional_zones = !many;
    c.max_open_zones = 2;
    o.flags = ZQCOW2_OPEN_RDWR;
    o.extent_bytes = many ? 0 : ZONE;
    if (rc == 0)
        rc = zqcow2_create(be, &c, NULL);
    return rc < 0 ? rc : zqcow2_open(be, &o, img, NULL);
}

/* The zones' mapping is known before anything is counted. */
static int prepare(struct zqcow2_image *img)
{
    static char buf[MiB(1)];
    int rc = zqcow2_write(img, buf, UNIT, ZONE, 0);

    if (rc == 0)
        rc = zqcow2_write(img, buf, MiB(1), 0, 0);
    for (uint64_t at = 2 * ZONE; rc == 0 && at < 2 * ZONE + MiB(64); at += MiB(1))
        rc = zqcow2_write_zeroes(img, MiB(1), at, 0);
    return rc;
}

static uint64_t read_at(unsigned i)
{
    return 2 * ZONE + (uint64_t)i * 7919 % 16384 * UNIT;
}

static int block(struct zqcow2_image *img, const char *kind, unsigned nr)
{
    static char buf[UNIT];
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < nr; i++) {
        uint64_t off = ZONE;

        if (!strcmp(kind, "append"))
            rc = zqcow2_append(img, buf, UNIT, &off, 0);
        else if (!strcmp(kind, "read"))
            rc = zqcow2_read(img, buf, UNIT, read_at(i));
        else if (!strcmp(kind, "first"))
            rc = zqcow2_write(img, buf, UNIT, i * (ZONE / 4096), 0);
        else if (!strcmp(kind, "over"))
            rc = zqcow2_write(img, buf, UNIT, read_at(i) % MiB(1), 0);
        else if (begins_zones(kind))
            rc = zqcow2_write(img, buf, UNIT, i * SMALL, 0);
        else
            return -EINVAL;
    }
    return rc;
}

/* ---- overlays ---- */

#define LEVELS 10u

struct chain {
    struct null file[LEVELS];
    unsigned top; /* file[0] is the lowest */
};

static int resolve(void *arg, const char *name, const char *format, uint32_t depth,
                   struct zqcow2_backend **be, struct zqcow2_error *err)
{
    struct chain *ch = arg;

    (void)name;
    (void)format;
    (void)err;
    return zqcow2_backend_new(&null_ops, &ch->file[ch->top - depth], NULL, be);
}

static int open_top(struct chain *ch, struct zqcow2_image **img)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;
    int rc = zqcow2_backend_new(&null_ops, &ch->file[ch->top], NULL, &be);

    o.flags = ZQCOW2_OPEN_RDWR;
    o.resolve = resolve;
    o.resolve_arg = ch;
    return rc < 0 ? rc : zqcow2_open(be, &o, img, NULL);
}

static int create_top(struct chain *ch)
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct null *n = &ch->file[ch->top];
    struct zqcow2_backend *be;
    int rc = zqcow2_backend_new(&null_ops, n, NULL, &be);

    n->head = calloc(1, KEPT + MiB(2));
    c.virtual_size = SMALL;
    c.backing_name = ch->top ? "below" : NULL;
    c.backing_format = ch->top ? "qcow2" : NULL;
    if (rc == 0)
        rc = zqcow2_create(be, &c, NULL);
    zqcow2_backend_close(be);
    return rc;
}

/* The first half of each slice is the lowest file's; each has a cluster in the second half. */
static int make_level(struct chain *ch)
{
    static char buf[MiB(1)];
    struct zqcow2_image *img;
    int rc = create_top(ch);

    if (rc == 0)
        rc = open_top(ch, &img);
    for (uint64_t at = 0; rc == 0 && at < SMALL; at += SLICE) {
        rc = zqcow2_write(img, buf, UNIT, at + SLICE / 2 + ch->top * MiB(1), 0);
        for (uint64_t done = 0; rc == 0 && !ch->top && done < SLICE / 2; done += MiB(1))
            rc = zqcow2_write(img, buf, MiB(1), at + done, 0);
    }
    return rc < 0 ? rc : zqcow2_close(img);
}

static int read_chain(unsigned depth, unsigned nr)
{
    static struct chain ch;
    static char buf[UNIT];
    struct zqcow2_image *img;
    int rc = 0;

    for (; rc == 0 && ch.top <= depth; ch.top++)
        rc = make_level(&ch);
    ch.top = depth;
    if (rc == 0)
        rc = open_top(&ch, &img);
    for (unsigned i = 0; rc == 0 && i < nr; i++)
        rc = zqcow2_read(img, buf, UNIT, i % 2 * SLICE + i * 7919ull % 4096 * UNIT);
    if (rc == 0)
        rc = zqcow2_close(img);
    for (unsigned i = 0; i <= depth; i++)
        free(ch.file[i].head);
    return rc;
}

static void on_done(void *arg, const struct zqcow2_result *res)
{
    int *rc = arg;

    if (res->ret < 0)
        *rc = res->ret;
}

static int queue(struct zqcow2_image *img, bool append, unsigned nr)
{
    static char buf[UNIT];
    struct iovec iov = {buf, UNIT};
    struct zqcow2_request r[DEPTH];
    struct zqcow2_queue *q;
    int rc = zqcow2_queue_open(img, 8 * DEPTH, &q), bad = 0;

    for (unsigned i = 0; rc == 0 && bad == 0 && i < nr; i += DEPTH) {
        for (unsigned k = 0; k < DEPTH; k++)
            r[k] = (struct zqcow2_request){.size = sizeof(r[k]),
                                           .iov = &iov,
                                           .iovcnt = 1,
                                           .op = append ? ZQCOW2_OP_APPEND : ZQCOW2_OP_READ,
                                           .done = on_done,
                                           .arg = &bad,
                                           .offset = append ? ZONE : read_at(i + k)};
        if (zqcow2_queue_submit(q, r, DEPTH) != (int)DEPTH ||
            zqcow2_queue_wait(q, DEPTH, -1) != (int)DEPTH)
            return -EIO;
    }
    return rc < 0 ? rc : bad < 0 ? bad : zqcow2_queue_close(q);
}

int main(int argc, char **argv)
{
    struct null null;
    struct zqcow2_image *img;
    const char *kind;
    unsigned nr;
    int rc;

    if (argc != 3)
        return die("usage", -EINVAL);
    kind = argv[1];
    nr = (unsigned)atoi(argv[2]);
    if (!strncmp(kind, "read", 4) && kind[4]) {
        rc = read_chain((unsigned)(kind[4] - '0') % LEVELS, nr);
        return rc < 0 ? die(kind, rc) : 0;
    }
    rc = begin(&null, kind, &img);
    if (rc == 0 && strcmp(kind, "first") && !begins_zones(kind))
        rc = prepare(img);
    if (rc == 0)
        rc = kind[0] == 'q' ? queue(img, !strcmp(kind, "qappend"), nr) : block(img, kind, nr);
    if (rc == 0 && !strcmp(kind, "drain"))
        rc = zqcow2_drain(img);
    if (rc == 0)
        rc = zqcow2_close(img);
    if (rc < 0)
        return die(kind, rc);
    free(null.head);
    return 0;
}
