/* SPDX-License-Identifier: MIT */
/* The verb io: runs commands in qemu-io's language on one open image. */
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

static int run_help(struct zt_io *io, int argc, char **argv);

static const struct zt_io_command general[] = {
    { "length", "l", 0, 0, run_length, "", "shows the size of the device" },
    { "help", "?", 0, 1, run_help, "[command]", "lists the commands" },
    { "quit", "q", 0, 0, run_quit, "", "ends" },
    { .name = NULL },
};

static const struct zt_io_command *const tables[] = { zt_io_data, zt_io_async, zt_io_zone,
                                                      general };

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
    fflush(stdout);
    free(words);
}

static void run_input(struct zt_io *io)
{
    bool prompt = isatty(STDIN_FILENO) == 1;
    char *line = NULL;
    size_t room = 0;

    while (!io->quit) {
        if (prompt) {
            fputs("zqcow2> ", stdout);
            fflush(stdout);
        }
        if (getline(&line, &room, stdin) < 0)
            break;
        run_line(io, line);
    }
    free(line);
}

static int session(struct zt_io *io, char **commands, int count, unsigned flags)
{
    io->img = zt_open(&io->target, flags);
    if (!io->img)
        return 1;
    if (!zt_info(&io->target, io->img, &io->info))
        return zt_close(&io->target, io->img, 1);
    for (int i = 0; i < count && !io->quit; i++)
        run_line(io, commands[i]);
    if (count == 0)
        run_input(io);
    zt_io_end_queue(io);
    return zt_close(&io->target, io->img, io->failed);
}

static int run(int argc, char **argv)
{
    static const struct option longs[] = { ZT_OPTION_BACKEND, ZT_OPTION_SHARE,
                                           { "cmd", required_argument, NULL, 'c' },
                                           { "read-only", no_argument, NULL, 'r' },
                                           ZT_OPTION_END };
    static const char *const names[] = { "FILE" };
    char **commands = calloc((size_t)argc, sizeof(*commands));
    struct zt_options o = { .name = argv[0], .shorts = ":Uc:r", .longs = longs, .repeat = "c" };
    struct zt_io io = { .queue = NULL };
    unsigned flags = ZQCOW2_OPEN_RDWR;
    int c, count = 0, status = 1;
    bool ok = commands != NULL;

    while (ok && (c = zt_option(&o, argc, argv)) != -1) {
        if (c == 'c')
            commands[count++] = optarg;
        else if (c == 'r')
            flags = 0;
        else
            ok = zt_target_option(&io.target, c);
    }
    if (ok && zt_operands(argc, argv, 1, 1, names)) {
        io.target.path = argv[optind];
        status = session(&io, commands, count, flags);
    }
    free(commands);
    return status;
}

const struct zt_verb zt_verb_io = {
    "io", "[-c COMMAND]... [-r] [-U] [--backend=NAME] FILE",
    "Runs commands in qemu-io's language, the image staying open throughout",
    "  -c, --cmd=COMMAND       this command; without -c they come from standard input\n"
    "  -r, --read-only         open the image for reading only\n" ZT_HELP_SHARE ZT_HELP_BACKEND
    "The command help lists the commands. Exit status 1 if any of them failed.\n",
    run
};
