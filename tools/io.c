/* SPDX-License-Identifier: MIT */
/* The verb io: runs commands in qemu-io's language on one open image. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io.h"

static int run_quit(struct zt_io *io, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    io->quit = true;
    return 0;
}

static int run_length(struct zt_io *io, int argc, char **argv)
{
    char text[32];

    (void)argc;
    (void)argv;
    printf("%s\n", zt_human(text, sizeof(text), io->info.virtual_size));
    return 0;
}

/* What another process has changed meanwhile is seen, too. */
static int run_reopen(struct zt_io *io, int argc, char **argv)
{
    unsigned flags = io->flags;
    int c;

    while ((c = getopt(argc, argv, "rw")) != -1) {
        if (c == '?')
            return zt_io_bad_option(argv[0]), -1;
        flags = c == 'r' ? 0 : ZQCOW2_OPEN_RDWR;
    }
    zt_io_end_queue(io);
    io->failed |= zt_close(&io->target, io->img, 0) != 0;
    io->flags = flags;
    io->img = zt_open(&io->target, flags);
    io->quit |= !io->img;
    return io->img && zt_info(&io->target, io->img, &io->info) ? 0 : -1;
}

static int run_help(struct zt_io *io, int argc, char **argv);

static const struct zt_io_command general[] = {
    {"length", "l", 0, 0, run_length, "", "shows the size of the device"},
    {"reopen", NULL, 0, 1, run_reopen, "[-r | -w]", "closes and opens the image"},
    {"help", "?", 0, 1, run_help, "[command]", "lists the commands"},
    {"quit", "q", 0, 0, run_quit, "", "ends"},
    {.name = NULL},
};

static const struct zt_io_command *const tables[] = {zt_io_data, zt_io_async, zt_io_range,
                                                     zt_io_zone, general};

static const struct zt_io_command *find_command(const char *name)
{
    for (size_t t = 0; t < ZT_COUNT(tables); t++) {
        for (const struct zt_io_command *c = tables[t]; c->name; c++) {
            if (strcmp(c->name, name) == 0 || (c->other && strcmp(c->other, name) == 0))
                return c;
        }
    }
    return NULL;
}

static int run_help(struct zt_io *io, int argc, char **argv)
{
    (void)io;
    for (size_t t = 0; t < ZT_COUNT(tables); t++) {
        for (const struct zt_io_command *c = tables[t]; c->name; c++) {
            if (argc == 1 || find_command(argv[1]) == c)
                printf("%s %s -- %s\n", c->name, c->operands, c->summary);
        }
    }
    return 0;
}

static int run_words(struct zt_io *io, int argc, char **argv)
{
    const struct zt_io_command *c = find_command(argv[0]);

    if (!c) {
        zt_io_say("command \"%s\" not found", argv[0]);
        return -1;
    }
    if (argc - 1 < c->min || (c->max >= 0 && argc - 1 > c->max)) {
        zt_io_say("%s: wrong number of operands: %s %s", argv[0], c->name, c->operands);
        return -1;
    }
    optind = 0; /* glibc: begin anew */
    opterr = 0;
    return c->run(io, argc, argv);
}

/* Splits at blanks; the words point into line. */
static void run_line(struct zt_io *io, char *line)
{
    size_t room = strlen(line) / 2 + 2;
    char **words = calloc(room, sizeof(*words));
    char *save = NULL;
    int n = 0;

    if (!words) {
        zt_io_say("no memory for the command");
        io->failed = true;
        return;
    }
    for (char *w = strtok_r(line, " \t\r\n", &save); w; w = strtok_r(NULL, " \t\r\n", &save))
        words[n++] = w;
    if (n && run_words(io, n, words) < 0)
        io->failed = true;
    zt_io_poll(io);
    free(words);
    /* Nobody would know what became of the commands that follow. */
    if (!zt_output_ok())
        io->failed = io->quit = true;
}

/* Standard input: text[at, have) has come and was not taken yet. */
struct input {
    char *text;
    size_t at, have, room;
};

/* Reads on, behind what is there; false at the end, or when a signal has come. */
static bool more_input(struct input *in)
{
    ssize_t n;

    memmove(in->text, in->text + in->at, in->have - in->at);
    in->have -= in->at;
    in->at = 0;
    if (in->room - in->have < 2) {
        char *text = realloc(in->text, in->room * 2);

        if (!text)
            return false;
        in->text = text;
        in->room *= 2;
    }
    do {
        if (zt_wait_input(-1) == ZT_INPUT_STOP)
            return false;
        n = read(STDIN_FILENO, in->text + in->have, in->room - in->have - 1);
    } while (n < 0 && (errno == EINTR || errno == EAGAIN));
    in->have += n > 0 ? (size_t)n : 0;
    return n > 0;
}

/* The next line, or what the input ends with; NULL: nothing any more. */
static char *next_line(struct input *in)
{
    char *line, *end;

    while (!(end = memchr(in->text + in->at, '\n', in->have - in->at)) && more_input(in))
        ;
    if (zt_signal() || (!end && in->at == in->have))
        return NULL;
    line = in->text + in->at;
    if (!end)
        end = in->text + in->have;
    in->at = (size_t)(end - in->text) + (end < in->text + in->have);
    *end = '\0';
    return line;
}

static void run_input(struct zt_io *io)
{
    struct input in = {.room = 4096};
    bool prompt = isatty(STDIN_FILENO) == 1;
    char *line;

    in.text = malloc(in.room);
    while (in.text && !io->quit) {
        if (prompt) {
            fputs("zqcow2> ", stdout);
            fflush(stdout);
        }
        line = next_line(&in);
        if (!line)
            break;
        run_line(io, line);
    }
    free(in.text);
}

/* Says what kept a command from being run. */
static void end_of_commands(struct zt_io *io)
{
    if (!zt_signal())
        return;
    zt_error("%s: io: stopped by %s", io->target.path, zt_signal());
    io->failed = true;
}

static int session(struct zt_io *io, char **commands, int count)
{
    io->img = zt_open(&io->target, io->flags);
    if (!io->img)
        return 1;
    if (!zt_info(&io->target, io->img, &io->info))
        return zt_close(&io->target, io->img, 1);
    for (int i = 0; i < count && !io->quit && !zt_signal(); i++)
        run_line(io, commands[i]);
    if (count == 0)
        run_input(io);
    end_of_commands(io);
    zt_io_end_queue(io);
    return io->img ? zt_close(&io->target, io->img, io->failed) : 1;
}

static int run(int argc, char **argv)
{
    static const struct option longs[] = {ZT_OPTION_BACKEND,
                                          ZT_OPTION_SHARE,
                                          ZT_OPTION_SOURCES,
                                          ZT_OPTION_SNAPSHOT,
                                          {"cmd", required_argument, NULL, 'c'},
                                          {"read-only", no_argument, NULL, 'r'},
                                          ZT_OPTION_END};
    static const char *const names[] = {"FILE"};
    char **commands = calloc((size_t)argc, sizeof(*commands));
    struct zt_options o = {.name = argv[0], .shorts = ":Uc:r", .longs = longs, .repeat = "c"};
    struct zt_io io = {.flags = ZQCOW2_OPEN_RDWR};
    int c, count = 0, status = 1;
    bool ok = commands != NULL;

    while (ok && (c = zt_option(&o, argc, argv)) != -1) {
        if (c == 'c')
            commands[count++] = optarg;
        else if (c == 'r')
            io.flags = 0;
        else
            ok = zt_target_option(&io.target, c);
    }
    if (io.target.snapshot)
        io.flags = 0;
    if (ok && zt_operands(argc, argv, 1, 1, names)) {
        io.target.path = argv[optind];
        status = session(&io, commands, count);
    }
    free(commands);
    return status;
}

const struct zt_verb zt_verb_io = {
    "io", "[-c COMMAND]... [-r] [-U] " ZT_USE_SNAPSHOT ZT_USE_SOURCES "[--backend=NAME] FILE",
    "Runs commands in the language of qemu-io on one open image",
    "  -c, --cmd=COMMAND       run COMMAND; without -c, read commands from standard input\n"
    "  -r, --read-only         open the image for reading only\n" ZT_HELP_SHARE ZT_HELP_SNAPSHOT
        ZT_HELP_SOURCES ZT_HELP_BACKEND
    "The command help lists the commands. The exit status is 1 if a command failed.\n",
    run};
