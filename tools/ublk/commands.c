/* SPDX-License-Identifier: MIT */
/* The verb `zqcow2 ublk`: its arguments, and what list and del do for this kind of device. */
#include "ublk/commands.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "serve/control.h"
#include "ublk/recover.h"
#include "ublk/server.h"

enum { OPT_ID = SERVE_OPT_OWN, OPT_DEPTH, OPT_RECOVERABLE, OPT_RECOVER, OPT_COPY, OPT_END };
_Static_assert((int)OPT_END <= (int)ZT_OPT_END, "zt_options.seen has no room for them");

static const char usage[] =
    "usage: zqcow2 ublk add [--id N] [--queues N] [--depth N] [--block-size N]\n"
    "                       [--copy auto|zero|user] [--backend NAME] [--backing-root DIR]\n"
    "                       [--data-file FILE] [--backing-format FMT] [--ctl PATH]\n"
    "                       [--faults SPEC] [--user NAME] [--unconfined] [--read-only]\n"
    "                       [--recoverable wait|fail] [--foreground] FILE\n"
    "       zqcow2 ublk add --recover ID [OPTION...] [FILE]\n"
    "       zqcow2 ublk list\n"
    "       zqcow2 ublk del [--force] [--timeout SECONDS] ID|FILE\n";

static int fail_usage(void)
{
    fputs(usage, stderr);
    return 1;
}

/* ---- add ---- */

#define NO_ID UINT32_MAX

static bool set_recovery(const char *text, uint64_t *flags)
{
    *flags = UBLK_F_USER_RECOVERY;
    if (!strcmp(text, "fail"))
        *flags |= UBLK_F_USER_RECOVERY_FAIL_IO;
    else if (strcmp(text, "wait"))
        *flags = 0;
    if (!*flags)
        zt_error("--recoverable: must be wait or fail, not '%s'", text);
    return *flags;
}

static bool set_copy(const char *text, enum ublk_copy *copy)
{
    static const char *const names[] = {
        [UBLK_COPY_AUTO] = "auto", [UBLK_COPY_ZERO] = "zero", [UBLK_COPY_USER] = "user"};

    for (size_t i = 0; i < ZT_COUNT(names); i++) {
        if (!strcmp(text, names[i])) {
            *copy = (enum ublk_copy)i;
            return true;
        }
    }
    zt_error("--copy: must be auto, zero or user, not '%s'", text);
    return false;
}

static bool add_option(struct ublk_options *o, int c)
{
    switch (c) {
    case OPT_ID: return serve_number("--id", optarg, 0, UBLK_MAX_ID, &o->id);
    case OPT_DEPTH: return serve_number("--depth", optarg, 1, UBLK_MAX_DEPTH, &o->depth);
    case OPT_COPY: return set_copy(optarg, &o->copy);
    case OPT_RECOVERABLE: return set_recovery(optarg, &o->recovery);
    case OPT_RECOVER:
        o->recover = true;
        return serve_number("--recover", optarg, 0, UBLK_MAX_ID, &o->dev.dev_id);
    default: return serve_option(&o->serve, c);
    }
}

static bool set_defaults(struct ublk_options *o)
{
    if (o->recover) {
        if (o->id != NO_ID || o->serve.queues || o->depth || o->serve.block_size || o->recovery ||
            o->serve.read_only || o->copy) {
            zt_error("--recover: the device keeps its parameters: omit --id, --queues, --depth, "
                     "--block-size, --copy, --recoverable and --read-only");
            return false;
        }
        o->id = o->dev.dev_id;
        return true;
    }
    o->serve.queues = o->serve.queues ? o->serve.queues : serve_default_queues();
    o->depth = o->depth ? o->depth : 64;
    return true;
}

static bool parse_add(int argc, char **argv, struct ublk_options *o)
{
    static const struct option longopts[] = {
        {"id", required_argument, NULL, OPT_ID},
        {"depth", required_argument, NULL, OPT_DEPTH},
        {"recoverable", required_argument, NULL, OPT_RECOVERABLE},
        {"copy", required_argument, NULL, OPT_COPY},
        {"recover", required_argument, NULL, OPT_RECOVER},
        SERVE_OPTIONS,
        ZT_OPTION_END};
    struct zt_options opts = {.name = "ublk add", .shorts = ":", .longs = longopts};
    bool ok = true;
    int c;

    optind = 0;
    while (ok && (c = zt_option(&opts, argc, argv)) != -1)
        ok = add_option(o, c);
    if (!ok || !set_defaults(o))
        return false;
    if (argc - optind != 1 && !(o->recover && argc == optind)) {
        fail_usage();
        return false;
    }
    o->serve.target.path = argv[optind];
    return true;
}

static int verb_add(int argc, char **argv)
{
    struct ublk_options o = {.id = NO_ID};
    struct serve_state last;

    if (!parse_add(argc, argv, &o) || (o.recover && !ublk_recover_options(&o, &last)))
        return 1;
    return serve_launch(o.serve.foreground, ublk_serve, &o);
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

/*
 * Newer kernels stop the device only if nobody has it open, and close the door behind that check; a
 * program that looks at every new disk (udev) goes away by itself. -EOPNOTSUPP: this one cannot.
 */
static int try_stop(uint32_t id)
{
    struct ublk_ctl ctl;
    struct ublk_dev_info info;
    uint64_t features;
    int rc = ublk_ctl_open(&ctl), tries = 10;

    if (rc < 0)
        return rc;
    rc = ublk_ctl_features(&ctl, &features);
    if (rc >= 0)
        rc = ublk_ctl_info(&ctl, id, &info);
    if (rc >= 0)
        rc = features & UBLK_F_SAFE_STOP_DEV ? -EBUSY : -EOPNOTSUPP;
    for (; rc == -EBUSY && tries; tries--) {
        rc = ublk_ctl_try_stop(&ctl, id);
        if (rc == -EBUSY)
            usleep(100 * 1000);
    }
    ublk_ctl_close(&ctl);
    return rc;
}

/* What it is refused for is reported; the device may then be stopped already. */
static bool may_stop(const struct serve_state *st)
{
    int rc = try_stop(st->id);

    if (rc != -EBUSY && (rc == 0 || !in_use(st->endpoint)))
        return true;
    zt_error("%s is in use: unmount it and close it first, or use --force", st->endpoint);
    return false;
}

struct del {
    const char *name;
    uint32_t seconds;
    bool force;
};

static bool parse_del(int argc, char **argv, struct del *d)
{
    enum { OPT_FORCE = ZT_OPT_VERB, OPT_TIMEOUT };
    static const struct option longs[] = {{"force", no_argument, NULL, OPT_FORCE},
                                          {"timeout", required_argument, NULL, OPT_TIMEOUT},
                                          ZT_OPTION_END};
    struct zt_options opts = {.name = "ublk del", .shorts = ":", .longs = longs};
    int c;

    optind = 0;
    *d = (struct del){.seconds = SERVE_STOP_SECONDS};
    while ((c = zt_option(&opts, argc, argv)) != -1) {
        if (c == OPT_FORCE)
            d->force = true;
        else if (c != OPT_TIMEOUT || !serve_number("--timeout", optarg, 1, UINT32_MAX, &d->seconds))
            return false;
    }
    if (argc - optind != 1) {
        fail_usage();
        return false;
    }
    d->name = argv[optind];
    return true;
}

static int verb_del(int argc, char **argv)
{
    struct serve_state st;
    struct del d;

    if (!parse_del(argc, argv, &d) || !serve_find(&ublk_kind, d.name, &st))
        return 1;
    if (!st.alive && !d.force && in_use(st.endpoint)) {
        zt_error("%s is in use and waits for a server: unmount it first, or use --force",
                 st.endpoint);
        return 1;
    }
    if (!st.alive)
        return remove_dead(&st);
    if (serve_is_suspended(&st) || (!d.force && !may_stop(&st)))
        return 1;
    return serve_stop(&st, d.seconds);
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
