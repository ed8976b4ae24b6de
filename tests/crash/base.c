/* SPDX-License-Identifier: MIT */
/* Makes the image that the workloads of a geometry start from: once for each kind of disk. */
#include <stdlib.h>
#include <string.h>

#include "work.h"

void base_replay(struct power_model *o, struct run *r)
{
    uint32_t at = 0;

    power_init(o, &r->shape);
    run_replay(r, o, UINT64_MAX, &at);
}

static int take_snapshot(struct base *b)
{
    const struct crash_geometry *g = b->run.g;

    b->snapshot = malloc(g->size);
    b->run.snapshot = b->snapshot;
    if (!b->snapshot || qemu_snapshot(b->run.disk->file[THE_IMAGE], g->zone_size != 0) < 0 ||
        snapshot_read(b->run.disk->file[THE_IMAGE], b->snapshot, g->size) < 0)
        return -1;
    return 0;
}

/* What is there, and closed, becomes the source of an empty image, which takes its place. */
static void put_below(struct run *r, const struct crash_geometry *g, bool async)
{
    struct disk *disk = NULL;

    if (r->broken)
        return;
    if (g->commit || source_keep(g, r->disk) == 0)
        disk = crash_geometry_create(g, r->disk, async, r->why, sizeof(r->why));
    else
        snprintf(r->why, sizeof(r->why), "the base image cannot be kept as a source");
    r->broken = !disk;
    if (r->broken)
        return;
    disk_free(r->disk);
    r->disk = disk;
    r->g = g;
}

/* |: what has been written so far is one more source. At the end the last one is put below. */
static void run_prologue(struct run *r, const struct crash_geometry *g, bool async)
{
    struct crash_geometry middle = *g; /* only the last one is committed into the one below it */

    middle.commit = false;
    for (const char *p = g->prologue; *p && !r->broken; p++) {
        const char letter[2] = {*p, '\0'};

        if (*p != '|') {
            run_letters(r, letter);
            continue;
        }
        run_end(r, true);
        put_below(r, &middle, async);
        if (!r->broken)
            run_open(r);
    }
    run_end(r, true);
    if (g->source)
        put_below(r, g, async);
    r->g = r->disk->g = g;
}

static bool make(struct worker *w, struct base *b, const struct crash_geometry *g, bool async)
{
    struct crash_geometry alone = *g; /* the first image has no source */
    struct disk *disk;
    char why[320];

    alone.source = NULL;
    alone.commit = false;
    source_forget(g);
    disk = crash_geometry_create(&alone, NULL, async, why, sizeof(why));
    if (!disk) {
        violation(w, why);
        return false;
    }
    run_begin(&b->run, &alone, disk, false, false, 0, 0);
    run_prologue(&b->run, g, async);
    if (b->run.broken) {
        violation(w, b->run.why);
    } else if (g->packed && pack_image(b->run.disk->file[THE_IMAGE], g->size) < 0) {
        violation(w, "the base image cannot be packed");
    } else if (g->snapshot && take_snapshot(b) < 0) {
        b->absent = true; /* there is no qemu-img here */
        w->sh->absent[g - crash_geometries] = true;
    } else {
        return true;
    }
    run_fini(&b->run);
    return false;
}

struct base *base_of(struct worker *w, const struct crash_geometry *g, bool async)
{
    struct base *b = &w->base[g - crash_geometries][async];

    if (!b->ready && !b->absent)
        b->ready = make(w, b, g, async);
    return b->ready ? b : NULL;
}
