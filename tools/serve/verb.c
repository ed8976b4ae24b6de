/* SPDX-License-Identifier: MIT */
/* The verb serve: the servers of every kind that run on this machine. */
#include <string.h>

#include "serve/client.h"
#include "serve/control.h"
#include "serve/kinds.h"
#include "serve/options.h"
#include "tool.h"

static const struct serve_kind *const kinds[] = {&ublk_kind, &vhost_kind};

static int list(void)
{
    int status = 0;

    for (size_t i = 0; i < ZT_COUNT(kinds) && !status; i++)
        status = serve_list(kinds[i], true);
    return status;
}

/* A ublk device is more than its server: `ublk del` takes both away. */
static int stop(const char *name, uint32_t seconds)
{
    size_t n = strlen(vhost_kind.name);
    struct serve_state s;

    if (!strncmp(name, vhost_kind.name, n) && name[n])
        name += n;
    if (!serve_find(&vhost_kind, name, &s))
        return 1;
    if (s.alive)
        return serve_stop(&s, seconds);
    serve_state_remove(&s);
    return 0;
}

static int mistake(int argc, char **argv, bool timeout)
{
    if (timeout && strcmp(argv[0], "stop"))
        zt_error("serve: --timeout goes with 'stop'");
    else if (!strcmp(argv[0], "stop"))
        zt_error("serve stop: name one server, as zqcow2 serve list shows it");
    else if (!strcmp(argv[0], "list") && argc > 1)
        zt_error("serve list: takes no name, but got '%s'", argv[1]);
    else
        zt_error("serve: there is 'list', 'stop' and 'ctl', but not '%s'; see zqcow2 serve --help",
                 argv[0]);
    return 1;
}

static int run(int argc, char **argv)
{
    enum { OPT_TIMEOUT = ZT_OPT_VERB };
    static const struct option longs[] = {{"timeout", required_argument, NULL, OPT_TIMEOUT},
                                          ZT_OPTION_END};
    static const char *const names[] = {"list, stop or ctl", "ID|FILE"};
    struct zt_options opts = {.name = "serve", .shorts = ":", .longs = longs};
    uint32_t seconds = SERVE_STOP_SECONDS;
    int c;

    if (argc > 1 && !strcmp(argv[1], "ctl"))
        return serve_ctl(argc - 1, argv + 1);
    while ((c = zt_option(&opts, argc, argv)) != -1)
        if (c != OPT_TIMEOUT || !serve_number("--timeout", optarg, 1, UINT32_MAX, &seconds))
            return 1;
    if (!zt_operands(argc, argv, 1, 2, names))
        return 1;
    argc -= optind;
    argv += optind;
    if (argc == 2 && !strcmp(argv[0], "stop"))
        return stop(argv[1], seconds);
    if (argc == 1 && !strcmp(argv[0], "list") && !opts.seen[OPT_TIMEOUT])
        return list();
    return mistake(argc, argv, opts.seen[OPT_TIMEOUT]);
}

const struct zt_verb zt_verb_serve = {
    "serve",
    "list\n"
    "       zqcow2 serve stop [--timeout SECONDS] ID|FILE\n"
    "       zqcow2 serve ctl ID|FILE|PATH stats [--json] [--watch SECONDS] | stats --time on|off\n"
    "       zqcow2 serve ctl ID|FILE|PATH events | flush\n"
    "       zqcow2 serve ctl ID|FILE|PATH cut [--seed N] [--how HOW]\n"
    "       zqcow2 serve ctl ID|FILE|PATH fail KIND RANGE ERRNO [COUNT [NTH [EVERY]]]\n"
    "       zqcow2 serve ctl ID|FILE|PATH delay KIND MS[-MS] [RANGE]\n"
    "       zqcow2 serve ctl ID|FILE|PATH clear\n"
    "       zqcow2 serve ctl ID|FILE|PATH zone OFFSET normal|read-only|offline [--persist]\n"
    "       zqcow2 serve ctl ID|FILE|PATH resize [--shrink|--discard-data] [+|-]SIZE\n"
    "       zqcow2 serve ctl ID|FILE|PATH compact [--level N]\n"
    "       zqcow2 serve ctl ID|FILE|PATH snapshot [-l [--json] | -c NAME | -d NAME]\n"
    "       zqcow2 serve ctl ID|FILE|PATH bitmap [--list [--json] [NAME] | --add [-g SIZE] NAME |\n"
    "              --remove NAME | --clear NAME | --enable NAME | --disable NAME]",
    "Shows, controls and stops running servers",
    "  list                    a line for each server: its name, what clients open, its process\n"
    "                          and the image\n"
    "  stop                    ends a vhost-user server and waits until the image is "
    "closed\n" SERVE_HELP_TIMEOUT
    "  ctl                     sends a command to the control socket of a server:\n"
    "    stats                 prints statistics of the requests of the disk\n"
    "      --json              as an object\n"
    "      --watch=SECONDS     repeatedly, the rates of the last SECONDS\n"
    "      --time=on|off       only turns the measurement of times on or off\n"
    "    events                lists the latest events of the image\n"
    "    flush                 makes everything durable that was written\n"
    "    zone                  changes the state of the zone that contains OFFSET\n"
    "      --persist           the image stores the state\n"
    "    cut                   turns power off, if the server was started with faults\n"
    "      --seed=N            selects what is lost\n"
    "      --how=HOW           lose-all, keep-all, whole, torn-512 or torn-4096, and +reorder\n"
    "    fail                  makes the next COUNT requests of the file fail\n"
    "    delay                 delays requests of the file by so many milliseconds\n"
    "    clear                 removes the rules of fail and delay\n"
    "    resize                makes the disk larger or smaller, as zqcow2 resize does\n"
    "      --shrink            allow a smaller size: the data beyond it is lost\n"
    "      --discard-data      like --shrink, but first reset zones beyond it\n"
    "    compact               compresses the full zones\n"
    "      --level=N           of compression: zlib 1 to 9, zstd 1 to 22\n"
    "    snapshot              lists, takes or deletes snapshots, as zqcow2 snapshot does\n"
    "    bitmap                lists and changes bitmaps, as zqcow2 bitmap does\n"
    "      -g, --granularity=SIZE  bytes for each mark of a new bitmap\n",
    run};
