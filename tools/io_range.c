/* SPDX-License-Identifier: MIT */
/* The commands alloc, map, truncate, sleep and sigraise of the verb io. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "io.h"

/* *held: does the image itself, not one below it, hold the *len bytes at `at`? Shortens *len. */
static int held_at(struct zt_io *io, uint64_t at, uint64_t *len, bool *held)
{
    uint64_t from = at / ZT_SECTOR * ZT_SECTOR, end = at + *len;
    struct zqcow2_extent s = ZQCOW2_EXTENT_INIT;
    uint64_t span = (end - from + ZT_SECTOR - 1) / ZT_SECTOR * ZT_SECTOR;
    int rc = zqcow2_block_status(io->img, from, span, &s);

    if (rc < 0)
        return rc;
    *held = s.kind != ZQCOW2_BLOCK_UNALLOCATED && s.depth == 0;
    *len = (from + s.length < end ? from + s.length : end) - at;
    return 0;
}

static int run_alloc(struct zt_io *io, int argc, char **argv)
{
    uint64_t offset, length = ZT_SECTOR, left, piece, sum = 0;
    char at[64];
    bool held;

    if (!zt_io_size(argv[1], &offset) || (argc > 2 && !zt_io_size(argv[2], &length)))
        return -1;
    left = offset < io->info.virtual_size ? io->info.virtual_size - offset : 0;
    left = length < left ? length : left;
    for (uint64_t done = 0; done < left; done += piece) {
        int rc;

        piece = left - done;
        rc = held_at(io, offset + done, &piece, &held);
        if (rc < 0)
            return zt_io_failed(io, "alloc", rc, offset + done);
        sum += held ? piece : 0;
    }
    printf("%" PRIu64 "/%" PRIu64 " bytes allocated at offset %s\n", sum, left,
           zt_io_amount(at, sizeof(at), (double)offset));
    return 0;
}

static void print_run(uint64_t start, uint64_t length, bool held)
{
    char size[64], at[64];

    if (length)
        printf("%s (%#" PRIx64 ") bytes %s allocated at offset %s (0x%" PRIx64 ")\n",
               zt_io_amount(size, sizeof(size), (double)length), length, held ? "   " : "not",
               zt_io_amount(at, sizeof(at), (double)start), start);
}

static int run_map(struct zt_io *io, int argc, char **argv)
{
    uint64_t start = 0, size = io->info.virtual_size, piece;
    bool held, last = false;

    (void)argc;
    (void)argv;
    for (uint64_t at = 0; at < size && !zt_signal(); at += piece) {
        int rc;

        piece = size - at;
        rc = held_at(io, at, &piece, &held);
        if (rc < 0)
            return zt_io_failed(io, "map", rc, at);
        if (at && held != last) {
            print_run(start, at - start, last);
            start = at;
        }
        last = held;
    }
    print_run(start, size - start, last);
    return 0;
}

static int run_truncate(struct zt_io *io, int argc, char **argv)
{
    struct zqcow2_error err = {0, ""};
    uint64_t size;
    int rc;

    (void)argc;
    if (!zt_io_size(argv[1], &size))
        return -1;
    zt_io_wait(io);
    rc = zqcow2_resize(io->img, size, ZQCOW2_RESIZE_SHRINK, &err);
    if (rc < 0) {
        io->target.failure = rc;
        zt_io_say("truncate failed: %s", zt_reason(rc, &err));
        return -1;
    }
    return zt_info(&io->target, io->img, &io->info) ? 0 : -1;
}

static int run_sleep(struct zt_io *io, int argc, char **argv)
{
    uint64_t ms;

    (void)argc;
    if (!zt_parse_u64(argv[1], &ms)) {
        zt_io_say("sleep: '%s' is not a number of milliseconds", argv[1]);
        return -1;
    }
    fflush(stdout);
    for (double end = zt_now() + (double)ms / 1000; zt_now() < end && !zt_signal();) {
        nanosleep(&(struct timespec){0, 1000 * 1000}, NULL);
        zt_io_poll(io);
    }
    return 0;
}

static int run_sigraise(struct zt_io *io, int argc, char **argv)
{
    uint64_t number;

    (void)io;
    (void)argc;
    if (!zt_parse_u64(argv[1], &number) || !number || number > 64) {
        zt_io_say("sigraise: '%s' is not the number of a signal", argv[1]);
        return -1;
    }
    fflush(stdout); /* what came before has happened */
    return raise((int)number) == 0 ? 0 : -1;
}

const struct zt_io_command zt_io_range[] = {
    {"alloc", NULL, 1, 2, run_alloc, "off [len]", "counts the bytes that the image itself holds"},
    {"map", NULL, 0, 0, run_map, "", "lists the ranges that the image itself holds"},
    {"truncate", NULL, 1, 1, run_truncate, "size", "gives the device another size"},
    {"sleep", NULL, 1, 1, run_sleep, "ms", "waits; requests go on"},
    {"sigraise", NULL, 1, 1, run_sigraise, "number",
     "sends the process a signal: 9 ends it as a crash would"},
    {.name = NULL},
};
