/* SPDX-License-Identifier: MIT */
/*
 * Internal snapshots: the caller's arguments are checked and its strings made; ops/snapshot.c does
 * the rest.
 */
#include <errno.h>
#include "base/report.h"
#include "image/image.h"
#include "ops/snapshot.h"
#include "ops/truncate.h"

#define MAX_NAME 255u /* bytes; other programs have no more room */

static int check_name(const char *name, struct zqcow2_error *err)
{
    size_t n = name ? strlen(name) : 0;

    if (!n || n > MAX_NAME)
        return zq_fail(err, -EINVAL, "the name of a snapshot has 1 to %u bytes", MAX_NAME);
    return 0;
}

/* Clusters of a data file have no refcounts, so none of them can be kept. */
static int run(struct zqcow2_image *img, struct zq_snap *s)
{
    bool external;
    int rc;

    zq_core_lock(&img->core);
    external = img->core.hdr.incompat & ZQ_INCOMPAT_DATA_FILE;
    zq_core_unlock(&img->core);
    if (external)
        return zq_fail(s->err, ZQCOW2_EFEATURE, "an image with a data file has no snapshots");
    rc = zq_snapshot_run(&img->core, s);
    zq_snap_free(s);
    if (rc == 0)
        zq_truncate_run(&img->core);
    return rc < 0 ? zq_fail_rc(s->err, rc) : 0;
}

/* What the library finds out by itself must be left at 0. */
static int check_new(const struct zqcow2_snapshot *n, struct zqcow2_error *err)
{
    if (n->id || n->disk_size || n->vm_state_size || n->icount)
        return zq_fail(err, -EINVAL,
                       "only the name, the date and the clock of a snapshot can be set");
    return check_name(n->name, err);
}

int zqcow2_snapshot_take(struct zqcow2_image *img, const struct zqcow2_snapshot *snapshot,
                         struct zqcow2_error *err)
{
    struct zqcow2_snapshot n = ZQCOW2_SNAPSHOT_INIT;
    struct zq_snap s = {.kind = ZQ_SNAP_TAKE, .err = err};
    int rc;

    zq_clear_error(err);
    rc = zq_copy_sized(&n, sizeof(n), snapshot, sizeof(n));
    if (rc == 0)
        rc = check_new(&n, err);
    if (rc < 0)
        return zq_fail_rc(err, rc);
    s.name = n.name;
    s.facts = (struct zq_snapshot_facts){
        .seconds = n.date_sec, .nanoseconds = n.date_nsec, .vm_clock = n.vm_clock_nsec};
    return run(img, &s);
}

int zqcow2_snapshot_delete(struct zqcow2_image *img, const char *name, struct zqcow2_error *err)
{
    struct zq_snap s = {.kind = ZQ_SNAP_DELETE, .name = name, .err = err};

    zq_clear_error(err);
    return run(img, &s);
}

int zqcow2_snapshot_apply(struct zqcow2_image *img, const char *name, struct zqcow2_error *err)
{
    struct zq_snap s = {.kind = ZQ_SNAP_APPLY, .name = name, .err = err};

    zq_clear_error(err);
    return run(img, &s);
}

/* The strings of a record have no end of their own: text has room for both. */
static void show(const uint8_t *raw, char *text, zqcow2_snapshot_fn *each, void *arg)
{
    struct zqcow2_snapshot out = ZQCOW2_SNAPSHOT_INIT;
    struct zq_snapshot_facts f;
    struct zq_snapshot r;

    zq_snapshot_read(raw, &r);
    zq_snapshot_facts(raw, &f);
    memcpy(text, zq_snapshot_id(raw), r.id_bytes);
    text[r.id_bytes] = '\0';
    memcpy(text + r.id_bytes + 1, zq_snapshot_name(raw), r.name_bytes);
    text[r.id_bytes + 1 + r.name_bytes] = '\0';
    out.id = text;
    out.name = text + r.id_bytes + 1;
    out.disk_size = f.disk_bytes;
    out.vm_state_size = f.vm_state_bytes;
    out.vm_clock_nsec = f.vm_clock;
    out.icount = f.icount;
    out.date_sec = f.seconds;
    out.date_nsec = f.nanoseconds;
    each(arg, &out);
}

/*
 * The callbacks come when all is read, and hold nothing of the image. A record that is wrong hides
 * those behind it, and none before it.
 */
int zqcow2_snapshot_list(struct zqcow2_image *img, zqcow2_snapshot_fn *each, void *arg,
                         struct zqcow2_error *err)
{
    struct zqcow2_error why = {0, ""};
    struct zq_snap s = {.kind = ZQ_SNAP_LIST, .err = &why, .partial = true};
    const size_t room = 2 * (UINT16_MAX + 1);
    const uint8_t *raw;
    uint64_t pos = 0;
    char *text;
    int rc;

    zq_clear_error(err);
    rc = zq_snapshot_run(&img->core, &s);
    text = rc == 0 ? zq_alloc(&img->core.hooks, 1, room) : NULL;
    if (rc == 0 && !text)
        rc = -ENOMEM;
    while (rc == 0 && (raw = zq_snap_next(&s, &pos)))
        show(raw, text, each, arg);
    if (text)
        zq_free(&img->core.hooks, text, room);
    zq_snap_free(&s);
    if (rc == 0 || why.code == rc)
        return why.code ? zq_fail(err, why.code, "%s", why.text) : 0;
    return zq_fail_rc(err, rc);
}
