/* SPDX-License-Identifier: MIT */
/* The command zqcow2: finds the verb, answers --help and --version. */
#include <locale.h>
#include <signal.h>
#include <string.h>

#include "tool.h"

#define VERB(name, page, options) extern const struct zt_verb zt_verb_##name;
#include "verbs.def"
#undef VERB

static const struct entry {
    const struct zt_verb *verb;
    const char *page;
} verbs[] = {
#define VERB(name, page, options) {&zt_verb_##name, page},
#include "verbs.def"
#undef VERB
};

static void print_usage(FILE *out)
{
    fprintf(out, "usage: zqcow2 VERB [OPTION]... FILE [OPERAND]...\n"
                 "       zqcow2 help [VERB] | zqcow2 version\n"
                 "       zqcow2 VERB --help | zqcow2 --help | zqcow2 --version\n\n"
                 "Creates, inspects and uses zoned qcow2 images.\n\n");
    for (size_t i = 0; i < ZT_COUNT(verbs); i++)
        fprintf(out, "  %-10s %s\n", verbs[i].verb->name, verbs[i].verb->summary);
    fprintf(out, "\nOffsets, lengths and sizes are in bytes and may end in K, M, G, T, P or E.\n"
                 "backends: ");
    zt_backend_list(out);
    fprintf(out, "\nThe manual: zqcow2(1), zqcow2-ublk(1), zqcow2-vhost-user(1), zqcow2-format(5), "
                 "zqcow2(7), zqcow2-nbd(7).\n");
}

static void print_help(const struct entry *e)
{
    const struct zt_verb *v = e->verb;

    printf("usage: zqcow2 %s %s\n\n%s.\n\n%s\nThe manual: %s.\n", v->name, v->operands, v->summary,
           v->help, e->page);
}

static void print_version(void)
{
    unsigned v = zqcow2_version();

    printf("zqcow2 %d.%d.%d (library %u.%u.%u)\n", ZQCOW2_VERSION_MAJOR, ZQCOW2_VERSION_MINOR,
           ZQCOW2_VERSION_PATCH, v / 1000000, v / 1000 % 1000, v % 1000);
}

/* NULL after reporting. */
static const struct entry *find_verb(const char *name)
{
    for (size_t i = 0; i < ZT_COUNT(verbs); i++) {
        if (strcmp(verbs[i].verb->name, name) == 0)
            return &verbs[i];
    }
    zt_error("unknown verb '%s'; see zqcow2 --help", name);
    return NULL;
}

static bool asks_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || (i == 1 && strcmp(argv[i], "-h") == 0))
            return true;
    }
    return false;
}

static int run_verb(int argc, char **argv)
{
    const struct entry *e = find_verb(argv[0]);

    if (!e)
        return 1;
    if (asks_help(argc, argv)) {
        print_help(e);
        return 0;
    }
    return e->verb->run(argc, argv);
}

/* `help`, perhaps with a verb. */
static int run_help(int argc, char **argv)
{
    const struct entry *e = NULL;

    if (argc > 2) {
        zt_error("help: unexpected operand '%s'; see zqcow2 --help", argv[2]);
        return 1;
    }
    if (argc == 1)
        print_usage(stdout);
    else if ((e = find_verb(argv[1])))
        print_help(e);
    return argc == 1 || e ? 0 : 1;
}

static int dispatch(int argc, char **argv)
{
    if (argc < 2) {
        print_usage(stderr);
        return 1;
    }
    if (strcmp(argv[1], "help") == 0)
        return run_help(argc - 1, argv + 1);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_usage(stdout);
        return 0;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0 ||
        strcmp(argv[1], "version") == 0) {
        print_version();
        return 0;
    }
    return run_verb(argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
    const char *sig;
    int status;

    if (!zt_open_streams())
        return 1;
    /* Only for the character set of report --map: numbers stay in the C locale. */
    setlocale(LC_CTYPE, "");
    /* A reader that goes away must not leave the image open: write errors are seen instead. */
    signal(SIGPIPE, SIG_IGN);
    /* A file that may not grow is an error of the write, too. */
    signal(SIGXFSZ, SIG_IGN);
    status = dispatch(argc, argv);
    if (!zt_output_ok() && !status)
        status = 1;
    sig = zt_signal();
    if (sig && !status)
        zt_error("received %s after all work was done", sig);
    zt_release_signals();
    return status;
}
