/* SPDX-License-Identifier: MIT */
/* The commands read, write, flush and discard of the verb io. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "io.h"

#define LONGEST ((uint64_t)INT32_MAX)

struct options {
    const char *name; /* of the command, for its failures */
    bool machine, dump, quiet, unmap, zeroes, pattern, partial;
    unsigned flags; /* zqcow2_io_flag */
    uint8_t byte;
    const char *file;
    uint64_t pattern_start, pattern_length; /* of read -P: where in the buffer */
    uint64_t offset, length;
};

static bool take_option(struct options *o, int c, const char *command, bool reading)
{
    switch (c) {
    case 'c': o->flags |= ZQCOW2_COMPRESS; return true;
    case 'C': o->machine = true; return true;
    case 'f': o->flags |= ZQCOW2_FUA; return true;
    case 'l': o->partial = true; return zt_io_size(optarg, &o->pattern_length);
    case 'n': o->flags |= ZQCOW2_NO_FALLBACK; return true;
    case 'p': /* qemu-io takes it and does nothing */ return true;
    case 'P': o->pattern = true; return zt_io_byte(optarg, &o->byte);
    case 'q': o->quiet = true; return true;
    case 's': o->file = optarg; return !reading || zt_io_size(optarg, &o->pattern_start);
    case 'u': o->unmap = true; return true;
    case 'v': o->dump = true; return true;
    case 'z': o->zeroes = true; return true;
    default: return zt_io_bad_option(command);
    }
}

static bool vector(const char *command)
{
    return command[strlen(command) - 1] == 'v';
}

/* Offset and length; of readv and writev the lengths add up. */
static bool parse_range(struct options *o, int argc, char **argv)
{
    uint64_t length;

    if (argc - optind < 2 || (argc - optind > 2 && !vector(argv[0]))) {
        zt_io_say("%s: needs an offset and a length", argv[0]);
        return false;
    }
    if (!zt_io_size(argv[optind], &o->offset))
        return false;
    for (int i = optind + 1; i < argc; i++) {
        if (!zt_io_size(argv[i], &length))
            return false;
        o->length = length > UINT64_MAX - o->length ? UINT64_MAX : o->length + length;
    }
    return true;
}

/* Options, offset and length of one command. */
static bool parse(struct options *o, int argc, char **argv, const char *letters, bool reading)
{
    int c;

    *o = (struct options){.name = reading ? "read" : "write", .byte = ZT_IO_FILL};
    if (vector(argv[0]))
        o->name = argv[0];
    while ((c = getopt(argc, argv, letters)) != -1) {
        if (!take_option(o, c, argv[0], reading))
            return false;
    }
    return parse_range(o, argc, argv);
}

static bool short_enough(const struct options *o)
{
    if (o->length <= LONGEST)
        return true;
    zt_io_say("length %" PRIu64 " exceeds %" PRIu64, o->length, LONGEST);
    return false;
}

static int report(const struct options *o, const char *verb, double start)
{
    struct zt_io_result r = {verb, o->offset, o->length, zt_now() - start, o->machine};

    if (!o->quiet)
        zt_io_print(&r);
    return 0;
}

/* False, after a message, if bytes[start, start + length) are not all the pattern. */
static bool verify(const struct options *o, const uint8_t *bytes)
{
    uint64_t length = o->partial ? o->pattern_length : o->length - o->pattern_start;

    for (uint64_t i = 0; i < length; i++) {
        if (bytes[o->pattern_start + i] == o->byte)
            continue;
        zt_io_say("Pattern verification failed at offset %" PRIu64 ", %" PRIu64 " bytes",
                  o->offset + o->pattern_start, length);
        return false;
    }
    return true;
}

/* The pattern's range lies inside what is read. */
static bool pattern_fits(const struct options *o)
{
    if (!o->pattern && (o->partial || o->file)) {
        zt_io_say("read: -s and -l need -P");
        return false;
    }
    if (o->pattern_start <= o->length &&
        (!o->partial || o->pattern_length <= o->length - o->pattern_start))
        return true;
    zt_io_say("read: the range of the pattern exceeds the range that is read");
    return false;
}

/* Any offset and length, as qemu-io: the library reads the sectors around them. */
static int read_widened(struct zt_io *io, const struct options *o, uint8_t **buf, uint8_t **bytes)
{
    uint64_t lead = o->offset % ZT_SECTOR, from = o->offset - lead;
    uint64_t span = (lead + o->length + ZT_SECTOR - 1) / ZT_SECTOR * ZT_SECTOR;

    *buf = zt_buffer((size_t)span);
    if (!*buf)
        return -ENOMEM;
    *bytes = *buf + lead;
    return zqcow2_read(io->img, *buf, (size_t)span, from);
}

static int run_read(struct zt_io *io, int argc, char **argv)
{
    uint8_t *buf = NULL, *bytes = NULL;
    struct options o;
    double start;
    int rc, status = 0;

    if (!parse(&o, argc, argv, "Cl:pP:qs:v", true) || !short_enough(&o) || !pattern_fits(&o))
        return -1;
    start = zt_now();
    rc = read_widened(io, &o, &buf, &bytes);
    if (rc < 0) {
        status = zt_io_failed(io, o.name, rc, o.offset);
    } else {
        if (o.pattern && !verify(&o, bytes))
            status = -1;
        if (o.dump)
            zt_io_dump(bytes, o.length, o.offset);
        report(&o, "read", start);
    }
    free(buf);
    return status;
}

/* The buffer repeats the file's content. */
static bool fill_from_file(uint8_t *buf, size_t len, const char *path)
{
    FILE *f = fopen(path, "rb");
    size_t have = f ? fread(buf, 1, len, f) : 0;

    if (!f || ferror(f))
        zt_io_say("%s: %s", path, strerror(errno));
    else if (have == 0 && len)
        zt_io_say("%s: the file is empty", path);
    if (f)
        fclose(f);
    for (size_t i = have; have && i < len; i++)
        buf[i] = buf[i - have];
    return have > 0 || len == 0;
}

static int write_buffer(struct zt_io *io, const struct options *o)
{
    uint8_t *buf = zt_buffer((size_t)o->length);
    bool ok = buf != NULL;
    double start;
    int rc;

    if (ok && o->file)
        ok = fill_from_file(buf, (size_t)o->length, o->file);
    else if (ok)
        memset(buf, o->byte, (size_t)o->length);
    if (!ok) {
        free(buf);
        return -1;
    }
    start = zt_now();
    rc = zt_io_write_bytes(io, buf, (size_t)o->length, o->offset, o->flags);
    free(buf);
    return rc < 0 ? zt_io_failed(io, o->name, rc, o->offset) : report(o, "wrote", start);
}

static int run_write(struct zt_io *io, int argc, char **argv)
{
    struct options o;
    double start;
    int rc;

    if (!parse(&o, argc, argv, "cCfnpP:qs:uz", false))
        return -1;
    if ((o.pattern != false) + (o.file != NULL) + o.zeroes > 1 || (o.unmap && !o.zeroes)) {
        zt_io_say("write: at most one of -P, -s and -z, and -u only with -z");
        return -1;
    }
    if (o.flags & (o.zeroes ? ZQCOW2_COMPRESS : ZQCOW2_NO_FALLBACK)) {
        zt_io_say("write: -c not with -z, and -n only with -z");
        return -1;
    }
    if (!o.zeroes)
        return short_enough(&o) ? write_buffer(io, &o) : -1;
    start = zt_now();
    rc = zt_io_zero_bytes(io, o.length, o.offset, o.flags | (o.unmap ? 0 : ZQCOW2_NO_UNMAP));
    return rc < 0 ? zt_io_failed(io, o.name, rc, o.offset) : report(&o, "wrote", start);
}

static int run_discard(struct zt_io *io, int argc, char **argv)
{
    struct options o;
    double start = zt_now();
    int rc;

    if (!parse(&o, argc, argv, "Cq", false))
        return -1;
    rc = zt_io_discard_bytes(io, o.length, o.offset);
    return rc < 0 ? zt_io_failed(io, "discard", rc, o.offset) : report(&o, "discard", start);
}

static int run_flush(struct zt_io *io, int argc, char **argv)
{
    int rc = zqcow2_flush(io->img);

    (void)argc;
    (void)argv;
    return rc < 0 ? zt_io_failed(io, "flush", rc, 0) : 0;
}

const struct zt_io_command zt_io_data[] = {
    {"read", "r", 2, -1, run_read, "[-Cqv] [-P pattern [-s off] [-l len]] off len",
     "reads, and compares with a byte"},
    {"readv", NULL, 2, -1, run_read, "[-Cqv] [-P pattern [-s off] [-l len]] off len [len..]",
     "reads what several lengths add up to"},
    {"write", "w", 2, -1, run_write, "[-cCfnquz] [-P pattern | -s source_file] off len",
     "writes a byte, a file's content, or zeros (-z)"},
    {"writev", NULL, 2, -1, run_write, "[-Cfq] [-P pattern | -s source_file] off len [len..]",
     "writes what several lengths add up to"},
    {"discard", "d", 2, -1, run_discard, "[-Cq] off len", "discards whole clusters"},
    {"flush", "f", 0, 0, run_flush, "", "makes written data durable"},
    {.name = NULL},
};
