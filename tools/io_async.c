/* SPDX-License-Identifier: MIT */
/* The commands aio_read, aio_write and aio_flush of the verb io: requests on the queue. */
#include <stdlib.h>
#include <string.h>

#include "io.h"

#define DEPTH 128
#define MOST  ((uint64_t)INT32_MAX)

struct request { /* owned by the queue until done() */
    struct zt_io *io;
    const char *name; /* of the command */
    uint64_t offset, length;
    double start;
    bool machine, quiet, verify, dump, reading;
    uint8_t byte;
    struct iovec iov;
};

static void free_request(struct request *r)
{
    free(r->iov.iov_base);
    free(r);
}

static void verify(struct request *r)
{
    const uint8_t *bytes = r->iov.iov_base;

    for (size_t i = 0; i < r->length; i++) {
        if (bytes[i] == r->byte)
            continue;
        zt_io_say("Pattern verification failed at offset %llu, %llu bytes",
                  (unsigned long long)r->offset, (unsigned long long)r->length);
        r->io->failed = true;
        return;
    }
}

static void done(void *arg, const struct zqcow2_result *res)
{
    struct request *r = arg;
    struct zt_io_result out = {r->reading ? "read" : "wrote", r->offset, r->length,
                               zt_now() - r->start, r->machine};

    if (res->ret < 0) {
        zt_io_failed(r->io, r->name, res->ret, r->offset);
        r->io->failed = true;
    } else {
        if (r->verify)
            verify(r);
        if (r->dump)
            zt_io_dump(r->iov.iov_base, r->length, r->offset);
        if (!r->quiet)
            zt_io_print(&out);
    }
    free_request(r);
}

void zt_io_poll(struct zt_io *io)
{
    if (io->queue)
        zqcow2_queue_poll(io->queue, 0);
}

void zt_io_wait(struct zt_io *io)
{
    while (io->queue && zqcow2_queue_pending(io->queue)) {
        int rc = zqcow2_queue_wait(io->queue, zqcow2_queue_pending(io->queue), -1);

        if (rc < 0) {
            zt_io_say("waiting failed: %s", zqcow2_strerror(rc));
            io->failed = true;
            return;
        }
    }
}

void zt_io_end_queue(struct zt_io *io)
{
    zt_io_wait(io);
    if (io->queue)
        zqcow2_queue_close(io->queue);
    io->queue = NULL;
    fflush(stdout);
}

/* Takes ownership of r. Errors of the request itself come through done(). */
static int submit(struct zt_io *io, struct request *r, struct zqcow2_request *req)
{
    int rc = io->queue ? 0 : zqcow2_queue_open(io->img, DEPTH, &io->queue);

    req->size = sizeof(*req);
    req->offset = r->offset;
    req->length = r->length;
    req->done = done;
    req->arg = r;
    if (rc >= 0) {
        rc = zqcow2_queue_submit(io->queue, req, 1);
        while (rc == 0 && zqcow2_queue_pending(io->queue)) { /* the queue is full */
            rc = zqcow2_queue_wait(io->queue, 1, -1);
            if (rc >= 0)
                rc = zqcow2_queue_submit(io->queue, req, 1);
        }
    }
    if (rc > 0)
        return 0;
    zt_io_say("%s failed: %s", r->name, zqcow2_strerror(rc));
    free_request(r);
    return -1;
}

/* The lengths of the operands behind the offset add up to one request. */
static bool take_range(struct request *r, int argc, char **argv)
{
    uint64_t len;

    if (argc - optind < 2) {
        zt_io_say("%s: needs an offset and a length", argv[0]);
        return false;
    }
    if (!zt_io_size(argv[optind], &r->offset))
        return false;
    for (int i = optind + 1; i < argc; i++) {
        if (!zt_io_size(argv[i], &len))
            return false;
        if (len > MOST || r->length > MOST - len) {
            zt_io_say("%s: the total length exceeds %llu", argv[0], (unsigned long long)MOST);
            return false;
        }
        r->length += len;
    }
    return true;
}

static struct request *new_request(struct zt_io *io, const char *name)
{
    struct request *r = calloc(1, sizeof(*r));

    if (!r) {
        zt_io_say("%s failed: no memory", name);
        return NULL;
    }
    r->io = io;
    r->name = name;
    r->byte = ZT_IO_FILL;
    r->start = zt_now();
    return r;
}

static bool take_buffer(struct request *r, struct zqcow2_request *req)
{
    r->iov.iov_base = zt_buffer((size_t)r->length);
    r->iov.iov_len = (size_t)r->length;
    if (!r->iov.iov_base)
        return false;
    memset(r->iov.iov_base, r->byte, (size_t)r->length);
    req->iov = &r->iov;
    req->iovcnt = 1;
    return true;
}

/* Everything but the letters of one command; false after a message. */
static bool take_options(struct request *r, struct zqcow2_request *req, int argc, char **argv,
                         const char *letters)
{
    int c;

    while ((c = getopt(argc, argv, letters)) != -1) {
        if (c == 'P' && !zt_io_byte(optarg, &r->byte))
            return false;
        if (c == '?')
            return zt_io_bad_option(argv[0]);
        r->verify |= c == 'P';
        r->machine |= c == 'C';
        r->quiet |= c == 'q';
        r->dump |= c == 'v';
        if (c == 'f')
            req->flags = ZQCOW2_FUA;
        if (c == 'z')
            req->op = ZQCOW2_OP_WRITE_ZEROES;
    }
    return true;
}

static int run_write(struct zt_io *io, int argc, char **argv)
{
    struct zqcow2_request req = {.op = ZQCOW2_OP_WRITE};
    struct request *r = new_request(io, "aio_write");
    bool ok = r && take_options(r, &req, argc, argv, "CfP:quz") && take_range(r, argc, argv);
    bool zeroes = req.op == ZQCOW2_OP_WRITE_ZEROES;

    if (ok && zeroes && (r->verify || argc - optind != 2)) {
        zt_io_say("aio_write: -z takes one length and no -P");
        ok = false;
    }
    if (ok && !zeroes)
        ok = take_buffer(r, &req);
    if (!ok) {
        if (r)
            free_request(r);
        return -1;
    }
    r->verify = false;
    return submit(io, r, &req);
}

static int run_read(struct zt_io *io, int argc, char **argv)
{
    struct zqcow2_request req = {.op = ZQCOW2_OP_READ};
    struct request *r = new_request(io, "aio_read");

    if (!r || !take_options(r, &req, argc, argv, "CP:qv") || !take_range(r, argc, argv) ||
        !take_buffer(r, &req)) {
        if (r)
            free_request(r);
        return -1;
    }
    r->reading = true;
    return submit(io, r, &req);
}

static int run_flush(struct zt_io *io, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    zt_io_wait(io);
    return 0;
}

const struct zt_io_command zt_io_async[] = {
    {"aio_read", NULL, 2, -1, run_read, "[-Cqv] [-P pattern] off len [len..]",
     "starts a read; prints its result when it completes"},
    {"aio_write", NULL, 2, -1, run_write, "[-Cfquz] [-P pattern] off len [len..]",
     "starts a write; prints its result when it completes"},
    {"aio_flush", NULL, 0, 0, run_flush, "", "waits for all started requests"},
    {.name = NULL},
};
