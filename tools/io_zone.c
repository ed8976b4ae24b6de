/* SPDX-License-Identifier: MIT */
/* The commands of the verb io that act on zones. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "io.h"

#define MOST ((uint64_t)INT32_MAX)

static uint64_t sector(uint64_t offset)
{
    return offset / ZT_SECTOR;
}

static void print_zone(void *arg, uint64_t index, const struct zqcow2_zone *z)
{
    (void)arg;
    (void)index;
    printf("start: 0x%" PRIx64 ", len 0x%" PRIx64 ", cap 0x%" PRIx64 ", wptr 0x%" PRIx64
           ", zcond:%u, [type: %u]\n",
           sector(z->start), sector(z->length), sector(z->capacity), sector(z->write_pointer),
           z->state, z->type);
}

static int run_report(struct zt_io *io, int argc, char **argv)
{
    uint64_t off, count;
    int rc;

    (void)argc;
    if (!zt_io_size(argv[1], &off) || !zt_io_size(argv[2], &count))
        return -1;
    rc = io->info.flags & ZQCOW2_INFO_ZONED ?
             zt_each_zone(io->img, &io->info, off, count, 0, print_zone, NULL) :
             ZQCOW2_ENOTZONED;
    return rc < 0 ? zt_io_failed(io, "zone report", rc, off) : 0;
}

static int manage(struct zt_io *io, char **argv, const char *what, uint16_t op)
{
    struct zqcow2_request req = {.size = sizeof(req), .op = op};
    struct zqcow2_result res = {0, 0, 0};
    int rc;

    if (!zt_io_size(argv[1], &req.offset) || !zt_io_size(argv[2], &req.length))
        return -1;
    rc = zqcow2_run(io->img, &req, &res);
    return rc < 0 ? zt_io_failed(io, what, rc, res.offset) : 0;
}

static int run_open(struct zt_io *io, int argc, char **argv)
{
    (void)argc;
    return manage(io, argv, "zone open", ZQCOW2_OP_ZONE_OPEN);
}

static int run_close(struct zt_io *io, int argc, char **argv)
{
    (void)argc;
    return manage(io, argv, "zone close", ZQCOW2_OP_ZONE_CLOSE);
}

static int run_finish(struct zt_io *io, int argc, char **argv)
{
    (void)argc;
    return manage(io, argv, "zone finish", ZQCOW2_OP_ZONE_FINISH);
}

static int run_reset(struct zt_io *io, int argc, char **argv)
{
    (void)argc;
    return manage(io, argv, "zone reset", ZQCOW2_OP_ZONE_RESET);
}

/* Several lengths make one append. */
static bool add_lengths(char **lengths, int count, uint64_t *sum)
{
    uint64_t len;

    *sum = 0;
    for (int i = 0; i < count; i++) {
        if (!zt_io_size(lengths[i], &len))
            return false;
        if (len > MOST || *sum > MOST - len) {
            zt_io_say("zap: the total length exceeds %" PRIu64, MOST);
            return false;
        }
        *sum += len;
    }
    return true;
}

static int run_append(struct zt_io *io, int argc, char **argv)
{
    uint64_t off, zone, len;
    bool print = false;
    void *buf;
    int c, rc;

    while ((c = getopt(argc, argv, "p")) != -1) {
        if (c != 'p') {
            zt_io_bad_option(argv[0]);
            return -1;
        }
        print = true;
    }
    if (argc - optind < 2) {
        zt_io_say("%s: needs an offset and a length", argv[0]);
        return -1;
    }
    if (!zt_io_size(argv[optind], &off) || !add_lengths(argv + optind + 1, argc - optind - 1, &len))
        return -1;
    buf = zt_buffer((size_t)len);
    if (!buf)
        return -1;
    memset(buf, ZT_IO_FILL, (size_t)len);
    zone = off;
    rc = zqcow2_append(io->img, buf, (size_t)len, &off, 0);
    free(buf);
    if (rc < 0)
        return zt_io_failed(io, "zone append", rc, zone);
    if (print)
        printf("After zap done, the append sector is 0x%" PRIx64 "\n", sector(off));
    return 0;
}

static int run_state(struct zt_io *io, int argc, char **argv)
{
    unsigned state;
    uint64_t off;
    int rc;

    (void)argc;
    if (!zt_io_size(argv[1], &off))
        return -1;
    if (strcmp(argv[2], "read-only") == 0) {
        state = ZQCOW2_ZONE_RDONLY;
    } else if (strcmp(argv[2], "offline") == 0) {
        state = ZQCOW2_ZONE_OFFLINE;
    } else {
        zt_io_say("state: '%s' is neither read-only nor offline", argv[2]);
        return -1;
    }
    rc = zqcow2_zone_set_state(io->img, off, state);
    return rc < 0 ? zt_io_failed(io, "zone state", rc, off) : 0;
}

const struct zt_io_command zt_io_zone[] = {
    {"zone_report", "zrp", 2, 2, run_report, "offset number", "lists zones"},
    {"zone_open", "zo", 2, 2, run_open, "offset len", "opens zones explicitly"},
    {"zone_close", "zc", 2, 2, run_close, "offset len", "closes open zones"},
    {"zone_finish", "zf", 2, 2, run_finish, "offset len", "makes zones full"},
    {"zone_reset", "zrs", 2, 2, run_reset, "offset len", "empties zones"},
    {"zone_append", "zap", 2, -1, run_append, "[-p] offset len [len..]",
     "appends; -p prints the offsets"},
    {"state", NULL, 2, 2, run_state, "offset read-only|offline",
     "sets or clears that state of a zone"},
    {.name = NULL},
};
