/* SPDX-License-Identifier: MIT */
/* The verb `zqcow2 ublk`: arguments, the way into the background, list and del. */
#include "ublk.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ublk_serve.h"
#include "ublk_state.h"

#define MAX_DEVICES 1024

enum { OPT_ID = ZT_OPT_VERB, OPT_QUEUES, OPT_DEPTH, OPT_READ_ONLY, OPT_FOREGROUND };

static const char usage[] =
    "usage: zqcow2 ublk add [--id N] [--queues N] [--depth N] [--backend NAME] [--read-only]\n"
    "                       [--foreground] FILE\n"
    "       zqcow2 ublk list\n"
    "       zqcow2 ublk del [--force] ID|FILE\n";

static int fail_usage(void)
{
    fputs(usage, stderr);
    return 1;
}

/* A decimal number in [min, max]; false with a message otherwise. */
static bool parse_number(const char *what, const char *text, uint32_t min, uint32_t max,
                         uint32_t *out)
{
    char *end;
    unsigned long v;

    errno = 0;
    v = strtoul(text, &end, 10);
    if (errno || end == text || *end || text[0] == '-' || v < min || v > max) {
        zt_error("%s: a number from %" PRIu32 " to %" PRIu32 ", not '%s'", what, min, max, text);
        return false;
    }
    *out = (uint32_t)v;
    return true;
}

/* ---- add ---- */

/* Prints the server's one report; its exit status. */
static int print_report(int fd)
{
    FILE *f = fdopen(fd, "r");
    char line[PATH_MAX + 512];
    int mark = f ? getc(f) : EOF;
    size_t n = mark == '-' ? fread(line, 1, sizeof(line) - 1, f) : 0;

    if (mark == EOF)
        zt_error("the server ended before the device was there");
    if (mark == '-') { /* one line, though a file's name may hold more */
        line[n ? n - 1 : 0] = '\0';
        zt_error("%s", line);
    }
    while (mark == '+' && fgets(line, sizeof(line), f))
        fputs(line, stdout);
    if (f)
        fclose(f);
    fflush(stdout);
    return mark == '+' ? 0 : 1;
}

static int add_background(const struct ublk_options *o)
{
    int p[2], rc;
    pid_t pid;

    if (pipe2(p, O_CLOEXEC) || (pid = fork()) < 0) {
        zt_error("%s", strerror(errno));
        return 1;
    }
    if (!pid) {
        setsid();
        rc = open("/dev/null", O_RDWR);
        if (rc >= 0) { /* whoever waits for the end of our output shall not wait for the server's */
            dup2(rc, 0);
            dup2(rc, 1);
            dup2(rc, 2);
        }
        close(p[0]);
        _exit(ublk_serve(o, p[1]));
    }
    close(p[1]);
    return print_report(p[0]);
}

/* A report is far smaller than a pipe, so that one thread can serve and a child can print. */
static int add_foreground(const struct ublk_options *o)
{
    int p[2];
    pid_t pid;

    if (pipe2(p, O_CLOEXEC) || (pid = fork()) < 0) {
        zt_error("%s", strerror(errno));
        return 1;
    }
    if (!pid) {
        close(p[1]);
        _exit(print_report(p[0]));
    }
    close(p[0]);
    return ublk_serve(o, p[1]);
}

static bool parse_add(int argc, char **argv, struct ublk_options *o)
{
    static const struct option longopts[] = {
        { "id", required_argument, NULL, OPT_ID },
        { "queues", required_argument, NULL, OPT_QUEUES },
        { "depth", required_argument, NULL, OPT_DEPTH },
        { "read-only", no_argument, NULL, OPT_READ_ONLY },
        { "foreground", no_argument, NULL, OPT_FOREGROUND },
        ZT_OPTION_BACKEND, ZT_OPTION_END
    };
    struct zt_options opts = { .name = "ublk add", .shorts = ":", .longs = longopts };
    int c;

    optind = 0;
    while ((c = zt_option(&opts, argc, argv)) != -1) {
        if (c == OPT_ID && !parse_number("--id", optarg, 0, 1u << 20, &o->id))
            return false;
        if (c == OPT_QUEUES && !parse_number("--queues", optarg, 1, 64, &o->queues))
            return false;
        if (c == OPT_DEPTH && !parse_number("--depth", optarg, 1, UBLK_MAX_DEPTH, &o->depth))
            return false;
        o->read_only |= c == OPT_READ_ONLY;
        o->foreground |= c == OPT_FOREGROUND;
        if (c == '?' || (c == ZT_OPT_BACKEND && !zt_target_option(&o->target, c)))
            return false;
    }
    if (argc - optind != 1) {
        fail_usage();
        return false;
    }
    o->target.path = argv[optind];
    return true;
}

static int verb_add(int argc, char **argv)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    struct ublk_options o = { .id = UINT32_MAX, .depth = 64,
                              .queues = cpus < 1 ? 1 : cpus > 4 ? 4 : (uint32_t)cpus };

    if (!parse_add(argc, argv, &o))
        return 1;
    return o.foreground ? add_foreground(&o) : add_background(&o);
}

/* ---- list ---- */

static int verb_list(int argc)
{
    uint32_t ids[MAX_DEVICES];
    int n;

    if (argc != 1)
        return fail_usage();
    n = ublk_state_ids(ids, MAX_DEVICES);
    if (n < 0) {
        zt_error("/run/zqcow2: %s", strerror(-n));
        return 1;
    }
    for (int i = 0; i < n; i++) {
        struct ublk_state st;

        if (ublk_state_read(ids[i], &st))
            continue;
        if (st.alive)
            printf("%" PRIu32 "\t/dev/ublkb%" PRIu32 "\tpid %ld\t", st.id, st.id, (long)st.pid);
        else
            printf("%" PRIu32 "\t-\tserver gone%s%s\t", st.id, st.error[0] ? ": " : "", st.error);
        zt_put(stdout, st.image);
        putchar('\n');
    }
    return 0;
}

/* ---- del ---- */

static bool find_device(const char *name, struct ublk_state *st)
{
    uint32_t ids[MAX_DEVICES];
    int n = ublk_state_ids(ids, MAX_DEVICES);
    char path[PATH_MAX], *end;
    unsigned long id = strtoul(name, &end, 10);
    bool by_id = *name && !*end;

    if (!by_id && !realpath(name, path))
        snprintf(path, sizeof(path), "%s", name);
    for (int i = 0; i < n; i++)
        if ((!by_id || ids[i] == id) && !ublk_state_read(ids[i], st) &&
            (by_id || !strcmp(st->image, path)))
            return true;
    zt_error("%s: no such ublk device of ours (see zqcow2 ublk list)", name);
    return false;
}

/* A mounted or otherwise claimed device cannot be opened for oneself alone. */
static bool in_use(uint32_t id)
{
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "/dev/ublkb%" PRIu32, id);
    fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);
    if (fd >= 0)
        close(fd);
    return fd < 0 && errno == EBUSY;
}

static int stop_server(const struct ublk_state *st)
{
    struct ublk_state after;
    struct pollfd p = { .events = POLLIN };

    p.fd = (int)syscall(SYS_pidfd_open, st->pid, 0);
    if (p.fd < 0 || syscall(SYS_pidfd_send_signal, p.fd, SIGTERM, NULL, 0)) {
        zt_error("server %ld: %s", (long)st->pid, strerror(errno));
        return 1;
    }
    while (poll(&p, 1, -1) < 0 && errno == EINTR)
        ;
    close(p.fd);
    if (ublk_state_read(st->id, &after) || after.alive || !after.error[0])
        return 0;
    zt_error("%s: closing the image failed: %s", after.image, after.error);
    ublk_state_remove(st->id);
    return 1;
}

static int remove_dead(const struct ublk_state *st)
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
    ublk_state_remove(st->id);
    return 0;
}

static int verb_del(int argc, char **argv)
{
    bool force = argc == 3 && !strcmp(argv[1], "--force");
    struct ublk_state st;

    if (argc != 2 && !force)
        return fail_usage();
    if (!find_device(argv[argc - 1], &st))
        return 1;
    if (!st.alive)
        return remove_dead(&st);
    if (!force && in_use(st.id)) {
        zt_error("/dev/ublkb%" PRIu32 " is in use: unmount it first, or --force", st.id);
        return 1;
    }
    return stop_server(&st);
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
        return verb_list(argc - 1);
    if (!strcmp(sub, "del"))
        return verb_del(argc - 1, argv + 1);
    return fail_usage();
}
