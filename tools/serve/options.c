/* SPDX-License-Identifier: MIT */
/* The options that all servers have. */
#include "serve/options.h"

#include <errno.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

uint32_t serve_default_queues(void)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    return cpus < 1 ? 1 : cpus > 4 ? 4 : (uint32_t)cpus;
}

bool serve_number(const char *what, const char *text, uint32_t min, uint32_t max, uint32_t *out)
{
    char *end;
    unsigned long v;

    errno = 0;
    v = strtoul(text, &end, 10);
    if (errno || end == text || *end || text[0] == '-' || v < min || v > max) {
        zt_error("%s: must be a number from %" PRIu32 " to %" PRIu32 ", not '%s'", what, min, max,
                 text);
        return false;
    }
    *out = (uint32_t)v;
    return true;
}

/* What zqcow2_open() takes; any other number is a mistake, and would be reported as the image's. */
static bool set_block_size(const char *text, uint32_t *out)
{
    *out = !strcmp(text, "512") ? 512 : !strcmp(text, "4096") ? 4096 : 0;
    if (!*out)
        zt_error("--block-size: must be 512 or 4096, not '%s'", text);
    return *out;
}

static bool set_faults(struct serve_options *o, const char *text)
{
    char why[SERVE_SPEC_WHY];

    serve_spec_init(&o->faults);
    o->has_faults = serve_spec_parse(&o->faults, text, why);
    if (!o->has_faults)
        zt_error("--faults: %s", why);
    return o->has_faults;
}

/* Before the server is started: the lookup may open files and load libraries. */
static bool set_user(const char *name, struct serve_user *u)
{
    const struct passwd *p;

    errno = 0;
    p = getpwnam(name);
    if (!p)
        zt_error("--user: %s: %s", name, errno ? strerror(errno) : "no such user");
    else if (geteuid())
        zt_error("--user: only root can serve as another user");
    if (!p || geteuid())
        return false;
    *u = (struct serve_user){true, p->pw_uid, p->pw_gid};
    return true;
}

bool serve_option(struct serve_options *o, int c)
{
    if (c == SERVE_OPT_QUEUES)
        return serve_number("--queues", optarg, 1, 64, &o->queues);
    if (c == SERVE_OPT_BLOCK_SIZE)
        return set_block_size(optarg, &o->block_size);
    if (c == SERVE_OPT_FAULTS)
        return set_faults(o, optarg);
    if (c == SERVE_OPT_USER)
        return set_user(optarg, &o->user);
    if (c == SERVE_OPT_CTL)
        o->ctl = optarg;
    else if (c == SERVE_OPT_UNCONFINED)
        o->unconfined = true;
    else if (c == SERVE_OPT_READ_ONLY)
        o->read_only = true;
    else if (c == SERVE_OPT_FOREGROUND)
        o->foreground = true;
    else
        return zt_target_option(&o->target, c);
    return true;
}
