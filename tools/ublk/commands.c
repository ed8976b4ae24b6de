/* SPDX-License-Identifier: MIT */
/* The verb `zqcow2 ublk`: its arguments, and what list and del do for this kind of device. */
#include "ublk/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "serve/control.h"
#include "ublk/server.h"

enum { OPT_ID = SERVE_OPT_OWN, OPT_DEPTH };

static const char usage[] =
    "usage: zqcow2 ublk add [--id N] [--queues N] [--depth N] [--block-size N]\n"
    "                       [--backend NAME] [--backing-root DIR] [--data-file FILE]\n"
    "                       [--backing-format FMT] [--ctl PATH] [--faults SPEC] [--read-only]\n"
    "                       [--foreground] FILE\n"
    "       zqcow2 ublk list\n"
    "       zqcow2 ublk del [--force] ID|FILE\n";

static int fail_usage(void)
{
    fputs(usage, stderr);
    return 1;
}

/* ---- add ---- */

static bool parse_add(int argc, char **argv, struct ublk_options *o)
{
    static const struct option longopts[] = {{"id", required_argument, NULL, OPT_ID},
                                             {"depth", required_argument, NULL, OPT_DEPTH},
                                             SERVE_OPTIONS,
                                             ZT_OPTION_END};
    struct zt_options opts = {.name = "ublk add", .shorts = ":", .longs = longopts};
    bool ok = true;
    int c;

    optind = 0;
    while (ok && (c = zt_option(&opts, argc, argv)) != -1) {
        if (c == OPT_ID)
            ok = serve_number("--id", optarg, 0, 1u << 20, &o->id);
        else if (c == OPT_DEPTH)
            ok = serve_number("--depth", optarg, 1, UBLK_MAX_DEPTH, &o->depth);
        else
            ok = serve_option(&o->serve, c);
    }
    if (!ok)
        return false;
    if (argc - optind != 1) {
        fail_usage();
        return false;
    }
    o->serve.target.path = argv[optind];
    return true;
}

static int verb_add(int argc, char **argv)
{
    struct ublk_options o = {.id = UINT32_MAX, .depth = 64, .serve.queues = serve_default_queues()};

    return parse_add(argc, argv, &o) ? serve_launch(o.serve.foreground, ublk_serve, &o) : 1;
}

/* ---- del ---- */

/* A mounted or otherwise claimed device cannot be opened for oneself alone. */
static bool in_use(const char *device)
{
    int fd = open(device, O_RDONLY | O_EXCL | O_CLOEXEC);

    if (fd >= 0)
        close(fd);
    return fd < 0 && errno == EBUSY;
}

static int remove_dead(const struct serve_state *st)
{
    struct ublk_ctl ctl;
    int rc = ublk_ctl_open(&ctl);

    if (rc < 0 && rc != -ENOENT) {
        zt_error("%s", ublk_ctl_explain(rc));
        return 1;
    }
    if (!rc) {
        rc = ublk_reap(&ctl, st->id, st->pid);
        ublk_ctl_close(&ctl);
        if (rc < 0) {
            zt_error("device %" PRIu32 ": %s", st->id, strerror(-rc));
            return 1;
        }
    }
    serve_state_remove(st);
    return 0;
}

static int verb_del(int argc, char **argv)
{
    bool force = argc == 3 && !strcmp(argv[1], "--force");
    struct serve_state st;

    if (argc != 2 && !force)
        return fail_usage();
    if (!serve_find(&ublk_kind, argv[argc - 1], &st))
        return 1;
    if (!st.alive)
        return remove_dead(&st);
    if (!force && in_use(st.endpoint)) {
        zt_error("%s is in use: unmount it first, or use --force", st.endpoint);
        return 1;
    }
    return serve_stop(&st);
}

int verb_ublk(int argc, char **argv)
{
    const char *sub = argc > 1 ? argv[1] : "";

    if (!strcmp(sub, "--help")) {
        fputs(usage, stdout);
        return 0;
    }
    if (!strcmp(sub, "add"))
        return verb_add(argc - 1, argv + 1);
    if (!strcmp(sub, "list"))
        return argc == 2 ? serve_list(&ublk_kind, false) : fail_usage();
    if (!strcmp(sub, "del"))
        return verb_del(argc - 1, argv + 1);
    return fail_usage();
}
