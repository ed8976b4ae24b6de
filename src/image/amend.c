/* SPDX-License-Identifier: MIT */
/* Other features for an image that has been made: what stays, and what snapshots may hinder. */
#include <errno.h>

#include "base/report.h"
#include "check/amend.h"
#include "image/image.h"
#include "image/opening.h"
#include "snapshot/snapshot.h"

#define V3_EXTRA 16u /* bytes that version 3 requires in a record of a snapshot */

/* What is wrong with a record, for the version that the image is to have; NULL: nothing. */
static const char *judge_record(const struct opening *o, const uint8_t *raw, uint32_t version)
{
    struct zq_snapshot_facts f;
    struct zq_snapshot r;

    zq_snapshot_read(raw, &r);
    zq_snapshot_facts(raw, &f);
    if (version >= 3)
        return r.extra >= V3_EXTRA ? NULL : "a snapshot does not say how large its disk is";
    if (f.sized && f.disk_bytes != o->h.stored_size)
        return "compat 0.10 has no snapshots of another size, and the image has";
    return f.vm_state_bytes <= UINT32_MAX ?
               NULL :
               "compat 0.10 has no snapshots with a state of 4 GiB, and the image has";
}

static int judge_snapshots(struct opening *o, uint32_t version)
{
    struct zq_snap s = {.kind = ZQ_SNAP_LIST,
                        .err = o->err,
                        .be = o->be,
                        .hooks = &o->hooks,
                        .bounds = {zq_form_of(&o->h), o->file_size},
                        .table_offset = o->h.snapshots_offset,
                        .nr = o->h.nb_snapshots};
    const char *why = NULL;
    const uint8_t *raw;
    uint64_t pos = 0;
    int rc = zq_snap_load(&s);

    while (rc == 0 && !why && (raw = zq_snap_next(&s, &pos)))
        why = judge_record(o, raw, version);
    zq_snap_free(&s);
    return why ? zq_fail(o->err, ZQCOW2_EFEATURE, "%s", why) : rc;
}

/* log2 of a number of bits that the caller has checked. */
static uint32_t order_of(uint32_t bits)
{
    uint32_t order = 0;

    while (bits >> (order + 1))
        order++;
    return order;
}

static struct zq_amend wanted(const struct opening *o, const struct zqcow2_amend_options *to)
{
    const struct zq_header *h = &o->h;

    return (struct zq_amend){
        .version = to->version ? to->version : h->version,
        .refcount_order = to->refcount_bits ? order_of(to->refcount_bits) : h->refcount_order,
        .layout = o->g.layout && to->layout ? to->layout : o->g.layout,
        .lazy = to->flags & ZQCOW2_AMEND_LAZY_REFCOUNTS ||
                (h->compat & ZQ_COMPAT_LAZY_REFCOUNTS && to->version != 2 &&
                 !(to->flags & ZQCOW2_AMEND_NO_LAZY_REFCOUNTS)),
        .raw = zq_opening_has_data_file(o) && h->autoclear & ZQ_AUTOCLEAR_RAW_DATA &&
               !(to->flags & ZQCOW2_AMEND_NO_RAW_DATA)};
}

static bool is_so(const struct opening *o, const struct zq_amend *a)
{
    const struct zq_header *h = &o->h;

    return a->version == h->version && a->refcount_order == h->refcount_order &&
           a->layout == o->g.layout && a->lazy == !!(h->compat & ZQ_COMPAT_LAZY_REFCOUNTS) &&
           a->raw == !!(h->autoclear & ZQ_AUTOCLEAR_RAW_DATA) &&
           !(o->bit_missing && a->layout == ZQCOW2_LAYOUT_44);
}

static int amend(struct opening *o, const struct zqcow2_amend_options *to, bool trial)
{
    struct zq_amend a = wanted(o, to);
    int rc = 0;

    a.trial = trial;
    if (to->layout && !o->g.layout)
        return zq_fail(o->err, ZQCOW2_EFEATURE, "layout: the image has no zones");
    if (a.lazy && o->g.layout)
        return zq_fail(o->err, ZQCOW2_EFEATURE, "images with zones have no lazy refcounts");
    if (o->bit_missing && a.layout != ZQCOW2_LAYOUT_44)
        return zq_fail(o->err, ZQCOW2_EFEATURE,
                       "zoned, but incompatible feature bit 5 is clear: amend the layout, too");
    if (is_so(o, &a))
        return 0;
    if (a.layout != o->g.layout && o->h.nb_snapshots)
        return zq_fail(o->err, ZQCOW2_EFEATURE,
                       "layout: the image has snapshots, whose zones have the old layout");
    if (a.version != o->h.version)
        rc = judge_snapshots(o, a.version);
    return rc < 0 ? rc : zq_amend(o->be, &o->hooks, &o->h, &a, o->err);
}

int zq_image_amend(struct zqcow2_backend *be, const struct zqcow2_amend_options *to,
                   const struct zqcow2_hooks *hooks, bool trial, struct zqcow2_error *err)
{
    struct opening o = {
        .be = be, .opt = ZQCOW2_OPEN_OPTIONS_INIT, .err = err, .hooks = *hooks, .rdwr = true};
    int rc = zq_be_enter(be, true, true, err);

    if (rc < 0)
        return rc;
    rc = zq_be_flush(be);
    if (rc == 0)
        rc = zq_opening_header(&o);
    if (rc == 0)
        rc = zq_opening_recover(&o);
    if (rc == 0)
        rc = amend(&o, to, trial);
    (void)zq_be_leave(be);
    return rc;
}
