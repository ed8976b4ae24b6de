/* SPDX-License-Identifier: MIT */
/* What the library's readers and its check, and qemu-img, make of an image that is left. */
#include "run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

static void init_quiet(struct run *r, struct disk *d, const struct store *st)
{
    struct disk_limits lim = r->w.lim;

    lim.async = false;
    lim.caps = 0;
    disk_init(d, st, &lim, 1);
    d->quiet = true;
}

static void by_check(struct run *r, const struct store *st)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_error err = {0, ""};
    struct zqcow2_backend *be;
    struct disk d;
    int rc;

    init_quiet(r, &d, st);
    be = disk_backend(&d);
    rc = zqcow2_check(be, &o, &res, &err);
    if (rc || (res.corruptions && !r->w.lazy))
        fail(r, st, "check: %d %s, %llu corruptions", rc, err.text,
             (unsigned long long)res.corruptions);
    zqcow2_backend_close(be);
    disk_free(&d);
    r->c->checks++;
}

static void same_zones(struct run *r, const struct store *st, const struct shape *s,
                       struct zqcow2_image *img)
{
    for (uint64_t i = 0; i < s->nz; i++) {
        struct zqcow2_zone z;
        uint32_t one = 1;
        bool cond;

        if (zqcow2_zone_report(img, i * s->zone, &z, &one) || one != 1)
            fail(r, st, "no report of zone %llu", (unsigned long long)i);
        if (i < s->conv)
            cond = z.state == ZQCOW2_ZONE_NOT_WP;
        else if (r->full[i])
            cond = z.state == ZQCOW2_ZONE_FULL;
        else
            cond = z.write_pointer == r->wp[i] &&
                   z.state == (r->wp[i] > i * s->zone ? ZQCOW2_ZONE_CLOSED : ZQCOW2_ZONE_EMPTY);
        if (!cond)
            fail(r, st, "zone %llu is reported in state %u at 0x%llx", (unsigned long long)i,
                 z.state, (unsigned long long)z.write_pointer);
    }
}

static void by_reader(struct run *r, const struct store *st, const struct shape *s)
{
    struct zqcow2_open_options o = run_options(r, 0);
    struct zqcow2_image *img;
    struct zqcow2_error err = {0, ""};
    struct disk d;
    int rc;

    init_quiet(r, &d, st);
    d.read_only = true;
    if (zqcow2_open(disk_backend(&d), &o, &img, &err))
        fail(r, st, "open for reading: %s", err.text);
    for (uint64_t off = 0; off < r->w.size; off += 131072) {
        uint64_t n = r->w.size - off < 131072 ? r->w.size - off : 131072;

        rc = zqcow2_read(img, r->other + off, n, off);
        if (rc)
            fail(r, st, "read at 0x%llx: %s", (unsigned long long)off, zqcow2_strerror(rc));
    }
    if (memcmp(r->other, r->content, r->w.size))
        fail(r, st, "the library reads something else");
    same_zones(r, st, s, img);
    zqcow2_close(img);
    disk_free(&d);
    r->c->reads++;
}

static int command(struct run *r, const char *cmd)
{
    char line[900];
    int rc;

    snprintf(line, sizeof(line), "cd '%s' && %s >qemu.out 2>&1", r->folder, cmd);
    rc = system(line);
    return WIFEXITED(rc) ? WEXITSTATUS(rc) : -1;
}

static void qemu_snapshots(struct run *r, const struct store *st, const struct shape *s)
{
    struct store raw = {NULL, 0, 0};
    char cmd[200], path[300];

    snprintf(path, sizeof(path), "%s/snap.raw", r->folder);
    for (unsigned i = 0; i < s->snaps; i++) {
        snprintf(cmd, sizeof(cmd),
                 "qemu-img convert -l snapshot.name=%s -f qcow2 -O raw cut snap.raw",
                 s->snap[i].name);
        if (command(r, cmd) || store_load(&raw, path))
            fail(r, st, "qemu-img does not convert snapshot %s", s->snap[i].name);
        store_read(&raw, r->other, r->w.size, 0);
        if (content_sum(r->other, r->w.size) != r->snap_sum[i])
            fail(r, st, "qemu-img reads something else in snapshot %s", s->snap[i].name);
        r->c->qemu_snaps++;
    }
    store_free(&raw);
}

/* A zoned image looks plain while the feature bit is clear; its pointers are then a leak. */
static void by_qemu(struct run *r, const struct store *st, const struct shape *s)
{
    struct store copy = {NULL, 0, 0};
    char path[300];
    int rc;

    snprintf(path, sizeof(path), "%s/cut", r->folder);
    store_copy(&copy, st);
    if (s->nz)
        put_be(&copy, 79, 1, s->incompat & 0xdf);
    store_save(&copy, path);
    store_free(&copy);
    rc = command(r, "qemu-img check -f qcow2 cut");
    if (rc != 0 && rc != 3)
        fail(r, st, "qemu-img check ends with %d", rc);
    r->c->qemu_checks++;
    qemu_snapshots(r, st, s);
}

void judge_others(struct run *r, const struct store *st, struct shape *s, bool thorough)
{
    if (thorough || odds(&r->judge_rng, 10))
        by_check(r, st);
    if (thorough || odds(&r->judge_rng, 6))
        by_reader(r, st, s);
    if (r->folder && !(s->incompat & 1) && odds(&r->judge_rng, thorough ? 6 : 300))
        by_qemu(r, st, s);
}
