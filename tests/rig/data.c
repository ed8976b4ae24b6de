/* SPDX-License-Identifier: MIT */
/* The data file of a rig's image: a file of its own, with backends like those of the image. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "rig/rig.h"

#define NAME "data"

/*
 * Faults are counted over both files, whichever comes next. Only the image's own backend may be one
 * that has to be polled, so this one completes from a thread.
 */
void rig_data_init(struct rig *r)
{
    struct rig_data *d = &r->data;

    store_init(&d->store);
    strict_init(&d->strict, &d->store);
    fault_init(&d->fault, strict_be(&d->strict));
    d->fault.plan = &r->fault;
    if (rig_shuffles(r->world))
        shuffle_init(&d->shuffle, fault_be(&d->fault), SHUFFLE_THREADED, r->seed + 1);
    d->shuffle.caps = r->shuffle.caps;
    if (r->world == RIG_URING) {
        strcpy(d->path, "zq-rig-data-XXXXXX");
        close(mkstemp(d->path));
    }
}

/* NULL, or what was wrong. */
const char *rig_data_free(struct rig *r)
{
    static char text[sizeof(r->data.strict.why)];
    struct rig_data *d = &r->data;
    bool broken = d->strict.broken;

    if (rig_shuffles(r->world))
        shuffle_free(&d->shuffle);
    if (d->path[0])
        unlink(d->path);
    strcpy(text, d->strict.why);
    strict_free(&d->strict);
    store_free(&d->store);
    for (unsigned i = 0; i < r->nr_below; i++)
        store_free(&d->below[i]);
    return broken ? text : NULL;
}

void rig_data_set(struct rig *r, struct zqcow2_create_options *o)
{
    r->data.store.limits = r->store.limits;
    r->data.shuffle.inline_in = r->shuffle.inline_in;
    o->data_file = NAME;
}

/* At the moment of an image that becomes a source; a new one is begun in its place. */
int rig_data_stack(struct rig *r)
{
    static uint8_t buf[STORE_PAGE];
    struct store *to = &r->data.below[r->nr_below];
    struct zqcow2_backend *be;
    int rc = 0;

    store_init(to);
    if (r->world != RIG_URING) {
        store_copy(to, &r->data.store);
        return 0;
    }
    rc = zqcow2_file_open(r->data.path, 0, &r->hooks, &be);
    if (rc)
        return rc;
    for (uint64_t at = 0, n; rc == 0 && at < r->g->size; at += n) {
        n = r->g->size - at < sizeof(buf) ? r->g->size - at : sizeof(buf);
        rc = zqcow2_backend_read(be, buf, n, at);
        store_put(to, buf, n, at);
    }
    zqcow2_backend_close(be);
    return rc;
}

/* The backend that belongs to what is being done with the image. */
static struct rig_be top_of(struct rig *r, uint32_t depth)
{
    struct rig_data *d = &r->data;

    if (depth & ~(ZQCOW2_RESOLVE_DATA_FILE | ZQCOW2_RESOLVE_WRITE | ZQCOW2_RESOLVE_CREATE))
        return store_be(&d->below[r->nr_below - (depth & 0xff)]);
    if (r->checking)
        return strict_be(&d->strict);
    if (rig_shuffles(r->world) && !(depth & ZQCOW2_RESOLVE_CREATE))
        return shuffle_be(&d->shuffle);
    return fault_be(&d->fault);
}

int rig_data_resolve(struct rig *r, const char *name, const char *format, uint32_t depth,
                     struct zqcow2_backend **be)
{
    struct rig_be top = top_of(r, depth);

    assert_string_equal(name, NAME);
    assert_string_equal(format, "raw");
    if (r->world == RIG_URING && !(depth & 0xff))
        return zqcow2_file_open(r->data.path, ZQCOW2_FILE_RDWR, &r->hooks, be);
    return zqcow2_backend_new(top.ops, top.self, &r->hooks, be);
}
