/* SPDX-License-Identifier: MIT */
/* The verb serve: the servers of every kind that run on this machine. */
#include <string.h>

#include "serve/control.h"
#include "serve/kinds.h"
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
static int stop(const char *name)
{
    size_t n = strlen(vhost_kind.name);
    struct serve_state s;

    if (!strncmp(name, vhost_kind.name, n) && name[n])
        name += n;
    if (!serve_find(&vhost_kind, name, &s))
        return 1;
    if (s.alive)
        return serve_stop(&s);
    serve_state_remove(&s);
    return 0;
}

static int run(int argc, char **argv)
{
    static const struct option none[] = {ZT_OPTION_END};
    static const char *const names[] = {"list or stop", "ID|FILE"};
    struct zt_options opts = {.name = "serve", .shorts = ":", .longs = none};

    if (zt_option(&opts, argc, argv) != -1 || !zt_operands(argc, argv, 1, 2, names))
        return 1;
    argc -= optind;
    argv += optind;
    if (argc == 1 && !strcmp(argv[0], "list"))
        return list();
    if (argc == 2 && !strcmp(argv[0], "stop"))
        return stop(argv[1]);
    zt_error("serve: list, or stop with a server, not '%s'; see zqcow2 serve --help", argv[0]);
    return 1;
}

const struct zt_verb zt_verb_serve = {
    "serve",
    "list\n"
    "       zqcow2 serve stop ID|FILE",
    "Shows the servers that run, and stops them",
    "  list                    a line for each server: its name, what clients open, its process\n"
    "                          and the image\n"
    "  stop                    ends a vhost-user server and waits until the image is closed\n",
    run};
