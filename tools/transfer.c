/* SPDX-License-Identifier: MIT */
/* The verbs append, write and read: standard input to the image, the image to standard output. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tool.h"

enum { OPT_PAD = ZT_OPT_VERB, OPT_FORCE };

#define FLUSH_BYTES   (64u << 20) /* so much, or for a second, may wait for a flush */
#define FLUSH_SECONDS 1.0

struct piece {
    uint64_t offset;
    size_t length;
};

struct transfer {
    struct zt_target target;
    struct zqcow2_image *img;
    struct zqcow2_info info;
    const char *verb;
    bool append, reading, pad, quiet, force;
    uint64_t offset, length; /* append: the zone's start; write: where the next byte goes */
    uint64_t done, durable;
    uint64_t first;       /* append: where it began */
    struct piece *pieces; /* append: of what is not durable, to be printed then; NULL: of nothing */
    size_t nr;
    double due;   /* when it is to be flushed */
    uint8_t *buf; /* ZT_PIECE bytes */
    struct zt_progress progress;
};

/* What a lost reader cannot know any more goes where errors go. */
static bool print_pieces(struct transfer *t)
{
    for (size_t i = 0; i < t->nr; i++)
        printf("%" PRIu64 " %zu\n", t->pieces[i].offset, t->pieces[i].length);
    t->nr = 0;
    if (!t->pieces || (fflush(stdout) == 0 && !ferror(stdout)))
        return true;
    zt_progress_end(&t->progress);
    zt_error("%s: %" PRIu64 " bytes were appended at %" PRIu64, t->target.path, t->durable,
             t->first);
    return zt_output_ok();
}

/* Makes durable what was written, and prints it; false after reporting. */
static bool settle(struct transfer *t)
{
    int rc = t->done == t->durable ? 0 : zqcow2_flush(t->img);

    if (rc == 0) {
        t->durable = t->done;
        return print_pieces(t);
    }
    zt_progress_end(&t->progress);
    if (!t->target.failure)
        zt_error("%s: %s: flush: %s; %" PRIu64 " bytes were written", t->target.path, t->verb,
                 zqcow2_strerror(rc), t->durable);
    t->target.failure = rc;
    return false;
}

static bool fail(struct transfer *t, const char *reason)
{
    (void)settle(t);
    zt_progress_end(&t->progress);
    zt_error("%s: %s at %" PRIu64 ": %s; %" PRIu64 " bytes were written", t->target.path, t->verb,
             t->offset, reason, t->durable);
    return false;
}

static bool stop(struct transfer *t)
{
    char text[64];

    snprintf(text, sizeof(text), "stopped by %s", zt_signal());
    return fail(t, text);
}

/*
 * Fills buf unless the input ends before, and flushes what is due meanwhile. The bytes read, or -1
 * after reporting.
 */
static ssize_t fill(struct transfer *t, size_t len)
{
    size_t have = 0;

    while (have < len) {
        double left = t->due - zt_now();
        ssize_t n = 0;

        switch (zt_wait_input(t->done == t->durable ? -1 : left > 0 ? left : 0)) {
        case ZT_INPUT_STOP: stop(t); return -1;
        case ZT_INPUT_LATE:
            if (!settle(t))
                return -1;
            continue;
        default: n = read(STDIN_FILENO, t->buf + have, len - have);
        }
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n < 0) {
            zt_error("standard input: %s", strerror(errno));
            fail(t, "the input cannot be read");
            return -1;
        }
        if (n == 0)
            break;
        have += (size_t)n;
    }
    return (ssize_t)have;
}

static void note(struct transfer *t, uint64_t where, size_t len)
{
    if (t->done == t->durable)
        t->due = zt_now() + FLUSH_SECONDS;
    if (t->done == 0)
        t->first = where;
    if (t->pieces)
        t->pieces[t->nr++] = (struct piece){where, len};
    t->done += len;
}

/* A multiple of 512 bytes from the buffer to the image. */
static bool put(struct transfer *t, size_t len)
{
    uint64_t where = t->offset;
    char text[192];
    int rc;

    if (!t->append && where == t->info.virtual_size)
        return fail(t, "the device ends here");
    rc = t->append ? zqcow2_append(t->img, t->buf, len, &where, 0) :
                     zqcow2_write(t->img, t->buf, len, where, 0);

    t->target.failure = rc;
    if (rc < 0)
        return fail(t, zt_zone_reason(t->img, rc, where, text, sizeof(text)));
    if (!t->append)
        t->offset += len;
    note(t, where, len);
    zt_progress_at(&t->progress, t->done);
    return (t->done - t->durable < FLUSH_BYTES && zt_now() < t->due) || settle(t);
}

/* The next piece ends where the library wants it: at an append's limit, a zone's end, the end. */
static size_t piece_length(const struct transfer *t)
{
    uint64_t most = ZT_PIECE, room;

    if (t->append && t->info.max_append_bytes < most)
        most = t->info.max_append_bytes / ZT_SECTOR * ZT_SECTOR;
    if (!t->append && t->info.zone_size) {
        room = t->info.zone_size - t->offset % t->info.zone_size;
        most = room < most ? room : most;
    }
    room = t->info.virtual_size - t->offset;
    if (!t->append && room && room < most) /* without room, it shows whether there is more input */
        most = room;
    return (size_t)most;
}

/* The input's end, `have` bytes into a piece: whole sectors go out, the rest only with --pad. */
static bool put_last(struct transfer *t, size_t have)
{
    size_t odd = have % ZT_SECTOR;
    char text[96];

    if (odd && t->pad) {
        memset(t->buf + have, 0, ZT_SECTOR - odd);
        have += ZT_SECTOR - odd;
    }
    if (have >= ZT_SECTOR && !put(t, have / ZT_SECTOR * ZT_SECTOR))
        return false;
    if (!odd || t->pad)
        return settle(t);
    snprintf(
        text, sizeof(text),
        "the input is not a multiple of %u bytes: the last %zu were omitted (--pad adds zeros)",
        ZT_SECTOR, odd);
    return fail(t, text);
}

/* Room for all pieces that may wait: none is shorter than the length, except for the last. */
static bool take_pieces(struct transfer *t, size_t length)
{
    if (!t->append || t->quiet)
        return true;
    t->pieces = zt_buffer((FLUSH_BYTES / length + 2) * sizeof(*t->pieces));
    return t->pieces != NULL;
}

static bool put_input(struct transfer *t)
{
    if (piece_length(t) == 0)
        return fail(t, "the image does not support appends");
    if (!take_pieces(t, piece_length(t)))
        return false;
    for (;;) {
        size_t want = piece_length(t);
        ssize_t have = fill(t, want);

        if (have < 0)
            return false;
        if ((size_t)have < want)
            return put_last(t, (size_t)have);
        if (!put(t, want))
            return false;
    }
}

/* Any bytes: what the library reads is widened to sectors around them. */
static bool get_output(struct transfer *t)
{
    uint64_t at = t->offset, end = t->offset + t->length;
    char text[192];

    while (at < end) {
        uint64_t from = at - at % ZT_SECTOR;
        uint64_t room = ZT_PIECE - (at - from);
        size_t len = (size_t)(end - at < room ? end - at : room);
        size_t span = (size_t)(at - from + len + ZT_SECTOR - 1) / ZT_SECTOR * ZT_SECTOR;
        int rc = zqcow2_read(t->img, t->buf, span, from);

        if (rc < 0) {
            zt_progress_end(&t->progress);
            zt_error("%s: read at %" PRIu64 ": %s", t->target.path, at,
                     zt_zone_reason(t->img, rc, from, text, sizeof(text)));
            return false;
        }
        if (fwrite(t->buf + (at - from), 1, len, stdout) != len)
            return zt_output_ok();
        at += len;
        t->done += len;
        zt_progress_at(&t->progress, t->done);
    }
    return true;
}

static bool check_range(struct transfer *t)
{
    if (!(t->append ? zt_zoned_info : zt_info)(&t->target, t->img, &t->info))
        return false;
    if (t->offset > t->info.virtual_size ||
        (t->reading && t->length > t->info.virtual_size - t->offset)) {
        zt_error("%s: %s: the range ends beyond the device (%" PRIu64 " bytes)", t->target.path,
                 t->verb, t->info.virtual_size);
        return false;
    }
    if (!t->reading && t->offset % (t->append ? t->info.zone_size : ZT_SECTOR)) {
        zt_error("%s: %s: offset %" PRIu64 " is not %s", t->target.path, t->verb, t->offset,
                 t->append ? "the start of a zone" : "a multiple of 512");
        return false;
    }
    return true;
}

/* The image is open and closed here; `move` does the work between. */
static int transfer(struct transfer *t, unsigned open_flags, bool (*move)(struct transfer *t),
                    bool progress)
{
    bool ok;

    t->img = zt_open(&t->target, open_flags);
    if (!t->img)
        return 1;
    t->buf = zt_buffer(ZT_PIECE);
    ok = t->buf && check_range(t);
    if (ok) {
        zt_progress_start(&t->progress, t->verb, t->length, progress);
        ok = move(t);
        zt_progress_end(&t->progress);
    }
    free(t->pieces);
    free(t->buf);
    return zt_close(&t->target, t->img, ok ? 0 : 1);
}

/* names[0] is FILE; the other operands are sizes. */
static bool parse(struct transfer *t, int argc, char **argv, const char *const *names, int count)
{
    static const struct option reader[] = {ZT_OPTION_BACKEND,
                                           ZT_OPTION_SHARE,
                                           ZT_OPTION_SOURCES,
                                           ZT_OPTION_SNAPSHOT,
                                           {"force", no_argument, NULL, OPT_FORCE},
                                           ZT_OPTION_END};
    static const struct option writer[] = {
        ZT_OPTION_BACKEND, ZT_OPTION_SOURCES, {"pad", no_argument, NULL, OPT_PAD}, ZT_OPTION_END};
    static const struct option appender[] = {ZT_OPTION_BACKEND,
                                             ZT_OPTION_SOURCES,
                                             {"pad", no_argument, NULL, OPT_PAD},
                                             {"quiet", no_argument, NULL, 'q'},
                                             ZT_OPTION_END};
    struct zt_options o = {.name = argv[0],
                           .shorts = t->reading ? ":U" :
                                     t->append  ? ":q" :
                                                  ":",
                           .longs = t->reading ? reader :
                                    t->append  ? appender :
                                                 writer};
    int c;

    while ((c = zt_option(&o, argc, argv)) != -1) {
        t->pad |= c == OPT_PAD;
        t->force |= c == OPT_FORCE;
        t->quiet |= c == 'q';
        if (c == OPT_PAD || c == OPT_FORCE || c == 'q')
            continue;
        else if (!zt_target_option(&t->target, c))
            return false;
    }
    if (!zt_operands(argc, argv, count, count, names))
        return false;
    t->verb = argv[0];
    t->target.path = argv[optind];
    return zt_size_arg(names[1], argv[optind + 1], &t->offset) &&
           (!t->reading || zt_size_arg(names[2], argv[optind + 2], &t->length));
}

static int run_append(int argc, char **argv)
{
    static const char *const names[] = {"FILE", "ZONE_OFFSET"};
    struct transfer t = {.append = true};

    if (!parse(&t, argc, argv, names, 2))
        return 1;
    return transfer(&t, ZQCOW2_OPEN_RDWR, put_input, isatty(STDOUT_FILENO) != 1);
}

static int run_write(int argc, char **argv)
{
    static const char *const names[] = {"FILE", "OFFSET"};
    struct transfer t = {.append = false};

    return parse(&t, argc, argv, names, 2) ? transfer(&t, ZQCOW2_OPEN_RDWR, put_input, true) : 1;
}

static int run_read(int argc, char **argv)
{
    static const char *const names[] = {"FILE", "OFFSET", "LENGTH"};
    struct transfer t = {.reading = true};

    if (!parse(&t, argc, argv, names, 3))
        return 1;
    if (isatty(STDOUT_FILENO) == 1 && !t.force) {
        zt_error("read: standard output is a terminal: redirect it, or add --force");
        return 1;
    }
    return transfer(&t, 0, get_output, isatty(STDOUT_FILENO) != 1);
}

#define HELP_PAD "  --pad                   pad the input with zeros to a multiple of 512 bytes\n"

const struct zt_verb zt_verb_append = {
    "append", "[--pad] [-q] " ZT_USE_SOURCES "[--backend=NAME] FILE ZONE_OFFSET",
    "Appends standard input to a zone; prints 'offset length' for each piece",
    HELP_PAD "  -q, --quiet             print nothing\n" ZT_HELP_SOURCES ZT_HELP_BACKEND,
    run_append};

const struct zt_verb zt_verb_write = {
    "write", "[--pad] " ZT_USE_SOURCES "[--backend=NAME] FILE OFFSET",
    "Writes standard input to the image", HELP_PAD ZT_HELP_SOURCES ZT_HELP_BACKEND, run_write};

const struct zt_verb zt_verb_read = {
    "read", "[--force] [-U] " ZT_USE_SNAPSHOT ZT_USE_SOURCES "[--backend=NAME] FILE OFFSET LENGTH",
    "Copies a range of the image to standard output",
    "  --force                 even to a terminal\n" ZT_HELP_SHARE ZT_HELP_SNAPSHOT ZT_HELP_SOURCES
        ZT_HELP_BACKEND,
    run_read};
