/* SPDX-License-Identifier: MIT */
/* What dead servers leave: which device a new server takes over, how it is, and what can go. */
#include "ublk/recover.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "serve/control.h"
#include "ublk/params.h"

#define RELIEF_SECONDS 60

/* The image must be that of the last server: any other has other data. */
static bool set_image(struct ublk_options *o, struct serve_state *last)
{
    bool known = serve_state_read(&ublk_kind, o->id, last) == 0;
    char path[PATH_MAX];

    if (!o->serve.target.path && !known) {
        zt_error("device %" PRIu32 ": its server is unknown: give the name of the image", o->id);
        return false;
    }
    if (!o->serve.target.path)
        o->serve.target.path = last->image;
    else if (known && realpath(o->serve.target.path, path) && strcmp(path, last->image)) {
        zt_error("device %" PRIu32 " serves the image %s", o->id, last->image);
        return false;
    }
    return true;
}

static const char *explain(int rc)
{
    return rc == -ENODEV || rc == -EINVAL ? "there is no such ublk device" :
           rc == -EACCES || rc == -EPERM  ? ublk_ctl_explain(-EACCES) :
                                            strerror(-rc);
}

static const char *why_not(const struct ublk_dev_info *i)
{
    if (!(i->flags & UBLK_F_USER_RECOVERY))
        return "it was added without --recoverable";
    if (!(i->flags & UBLK_F_USER_COPY))
        return "its server is another program";
    return NULL;
}

/* Its requests wait meanwhile; see the server's quiesce(). */
static bool relieve(const struct ublk_options *o, struct serve_state *last)
{
    bool can = o->dev.flags & (UBLK_F_USER_RECOVERY_REISSUE | UBLK_F_QUIESCE);

    /* One that was just killed may hold its lock for a moment. */
    for (int tries = 20; !can && last->alive && tries; tries--) {
        usleep(100 * 1000);
        if (serve_state_read(&ublk_kind, o->id, last))
            last->alive = false;
    }
    if (!last->alive)
        return true;
    if (!can) {
        zt_error("device %" PRIu32 " has a server, process %ld, which this kernel cannot replace: "
                 "requests in flight would fail",
                 o->id, (long)last->pid);
        return false;
    }
    return !serve_is_suspended(last) && serve_end(last, SIGUSR1, RELIEF_SECONDS);
}

static bool ask_driver(struct ublk_options *o, struct ublk_ctl *ctl)
{
    struct ublk_params p;
    int rc = ublk_ctl_info(ctl, o->id, &o->dev);
    const char *why = rc < 0 ? explain(rc) : why_not(&o->dev);

    if (!why) {
        rc = ublk_ctl_params(ctl, o->id, &p);
        why = rc < 0 ? explain(rc) : NULL;
    }
    if (why) {
        zt_error("device %" PRIu32 ": %s", o->id, why);
        return false;
    }
    o->serve.queues = o->dev.nr_hw_queues;
    o->depth = o->dev.queue_depth;
    o->serve.block_size = 1u << p.basic.logical_bs_shift;
    o->serve.read_only = p.basic.attrs & UBLK_ATTR_READ_ONLY;
    return true;
}

bool ublk_recover_options(struct ublk_options *o, struct serve_state *last)
{
    struct ublk_ctl ctl;
    bool ok;
    int rc;

    if (!set_image(o, last))
        return false;
    rc = ublk_ctl_open(&ctl);
    if (rc < 0) {
        zt_error("%s", ublk_ctl_explain(rc));
        return false;
    }
    ok = ask_driver(o, &ctl) && relieve(o, last);
    ublk_ctl_close(&ctl);
    return ok;
}

/* ---- devices of servers that have died ---- */

/* Its users may still have it open, and wait. */
static bool waits(struct ublk_ctl *ctl, uint32_t id)
{
    struct ublk_dev_info info;

    return ublk_ctl_info(ctl, id, &info) == 0 && info.flags & UBLK_F_USER_RECOVERY &&
           info.state != UBLK_DEV_DEAD;
}

int ublk_reap_left_behind(struct ublk_ctl *ctl, uint32_t id, const char *image,
                          struct serve_report *report)
{
    uint32_t ids[SERVE_STATE_MAX];
    int n = serve_state_ids(&ublk_kind, ids, SERVE_STATE_MAX);

    for (int i = 0; i < n; i++) {
        struct serve_state st;

        if (serve_state_read(&ublk_kind, ids[i], &st) || st.alive)
            continue;
        if (st.id != id && strcmp(st.image, image))
            continue;
        if (waits(ctl, st.id)) {
            serve_report_failure(report,
                                 "device %" PRIu32 " waits for a server: see ublk add --recover; "
                                 "or delete it",
                                 st.id);
            return -EBUSY;
        }
        if (!ublk_reap(ctl, st.id, st.pid))
            serve_state_remove(&st);
    }
    return 0;
}
