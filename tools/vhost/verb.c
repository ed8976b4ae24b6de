/* SPDX-License-Identifier: MIT */
/* The verb vhost-user: an image as a disk of virtual machines. See zqcow2-vhost-user(1). */
#include "vhost/server.h"

enum { OPT_SOCKET = SERVE_OPT_OWN, OPT_FD, OPT_END };
_Static_assert((int)OPT_END <= (int)ZT_OPT_END, "zt_options.seen has no room for them");

static bool parse(int argc, char **argv, struct vhost_options *o)
{
    static const struct option longopts[] = {{"socket", required_argument, NULL, OPT_SOCKET},
                                             {"fd", required_argument, NULL, OPT_FD},
                                             SERVE_OPTIONS,
                                             ZT_OPTION_END};
    static const char *const names[] = {"FILE"};
    struct zt_options opts = {.name = "vhost-user", .shorts = ":", .longs = longopts};
    bool ok = true;
    uint32_t fd = 0;
    int c;

    while (ok && (c = zt_option(&opts, argc, argv)) != -1) {
        if (c == OPT_SOCKET)
            o->socket = optarg;
        else if (c == OPT_FD)
            ok = serve_number("--fd", optarg, 3, INT32_MAX, &fd);
        else
            ok = serve_option(&o->serve, c);
    }
    if (!ok || !zt_operands(argc, argv, 1, 1, names))
        return false;
    if (!o->socket == !fd) {
        zt_error("vhost-user: one of --socket and --fd is needed");
        return false;
    }
    o->fd = (int)fd;
    o->serve.target.path = argv[optind];
    return true;
}

static int run(int argc, char **argv)
{
    struct vhost_options o = {.serve.queues = 4};

    return parse(argc, argv, &o) ? serve_launch(o.serve.foreground, vhost_serve, &o) : 1;
}

const struct zt_verb zt_verb_vhost_user = {
    "vhost-user",
    "--socket PATH|--fd N [--queues N] [--block-size N] [--backend NAME]\n"
    "                       [--backing-root DIR] [--data-file FILE] [--backing-format FMT]\n"
    "                       [--ctl PATH] [--faults SPEC] [--user NAME] [--unconfined]\n"
    "                       [--read-only] [--foreground] FILE",
    "Serves an image to virtual machines as a virtio disk",
    "  --socket=PATH           the UNIX socket that a virtual machine connects to\n"
    "  --fd=N                  an inherited socket instead\n"
    "  --queues=N              number of queues, 4 by default\n"
    "  --block-size=N          logical blocks of 512 bytes, or of 4096\n" ZT_HELP_FILES
        ZT_HELP_FORMAT ZT_HELP_BACKEND SERVE_HELP_CTL SERVE_HELP_USER
    "  --read-only             make the disk read-only\n"
    "  --foreground            serve in the foreground until a signal\n",
    run};
