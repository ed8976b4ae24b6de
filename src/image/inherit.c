/* SPDX-License-Identifier: MIT */
/*
 * What a new image takes over from its backing file: the size, and of one with zones all of them
 * as they are. The backing file is flushed first: a crash of the host could otherwise take bytes
 * back that lie below write pointers which the new image has durably.
 */
#include "image/inherit.h"

#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "base/report.h"

/* An option that is 0 takes the backing file's value; any other must be the same. */
static int inherit(struct zqcow2_error *err, const char *option, uint64_t has, uint64_t *value)
{
    if (*value && *value != has)
        return zq_fail(err, -EINVAL, "%s %" PRIu64 ": the backing file has %" PRIu64, option,
                       *value, has);
    *value = has;
    return 0;
}

static int inherit32(struct zqcow2_error *err, const char *option, uint32_t has, uint32_t *value)
{
    uint64_t wide = *value;
    int rc = inherit(err, option, has, &wide);

    *value = (uint32_t)wide;
    return rc;
}

/* These may differ. */
static void inherit_limits(const struct zq_geometry *g, struct zqcow2_create_options *opt)
{
    const uint32_t least = 2 * ZQ_SECTOR; /* of the capacity is beyond any limit */

    if (!opt->layout)
        opt->layout = g->layout == ZQCOW2_LAYOUT_V3 ? ZQCOW2_LAYOUT_44 : g->layout;
    /* Other programs store limits that a new image may not have: it gets the largest it may. */
    if (!opt->max_append_bytes && opt->layout == g->layout && g->max_append && g->capacity > least)
        opt->max_append_bytes = (uint32_t)zq_min(zq_geometry_max_append(g), g->capacity - least);
    if (!opt->max_open_zones)
        opt->max_open_zones = g->max_open;
    if (!opt->max_active_zones)
        opt->max_active_zones = g->max_active;
}

static uint32_t count_active(const struct zq_inherit *in)
{
    const struct zq_geometry *g = &in->o.g;
    uint32_t active = 0;

    for (uint32_t i = g->conventional; i < g->nr_zones; i++) {
        struct zq_entry e;

        zq_inherit_zone(in, i, &e);
        active += !e.full &&
                  (e.wp != zq_geometry_start(g, i) || zq_inherit_state(in, i) & ZQ_STORED_CLOSED);
    }
    return active;
}

/* Of those that hold, if one of them is a state, or extensions say that there is a table. */
static int take_states(struct zq_inherit *in)
{
    size_t bytes = (size_t)zq_states_bytes(in->o.h.states_zones);
    int rc = zq_opening_states(&in->o, &in->states);

    for (uint32_t i = 0; rc == 0 && in->states && i < in->o.g.nr_zones; i++) {
        if (in->o.g.descriptor_size || zq_inherit_state(in, i))
            return 0;
    }
    zq_free(&in->o.hooks, in->states, bytes);
    in->states = NULL;
    return rc;
}

static int inherit_zones(struct zq_inherit *in, struct zqcow2_create_options *opt,
                         struct zqcow2_error *err)
{
    const struct zq_geometry *g = &in->o.g;
    uint32_t active;
    int rc;

    if (opt->flags & ZQCOW2_CREATE_EMPTY)
        return zq_fail(err, -EINVAL, "size 0: the backing file has zones");
    if ((rc = inherit(err, "size", g->device_size, &opt->virtual_size)) < 0 ||
        (rc = inherit(err, "zone.size", g->zone_size, &opt->zone_size)) < 0 ||
        (rc = inherit(err, "zone.capacity", g->capacity, &opt->zone_capacity)) < 0 ||
        (rc = inherit32(err, "zone.conventional_zones", g->conventional,
                        &opt->conventional_zones)) < 0 ||
        (rc = inherit32(err, "zone.descriptor_extension", g->descriptor_size,
                        &opt->descriptor_extension)) < 0 ||
        (rc = zq_opening_pointers(&in->o, &in->pointers)) < 0 || (rc = take_states(in)) < 0)
        return rc;
    if (!opt->cluster_size)
        opt->cluster_size = 1u << in->o.h.cluster_bits;
    inherit_limits(g, opt);
    active = count_active(in);
    if (opt->max_active_zones && active > opt->max_active_zones)
        return zq_fail(err, -EINVAL,
                       "zone.max_active_zones %" PRIu32 ": the backing file has %" PRIu32
                       " active zones",
                       opt->max_active_zones, active);
    return 0;
}

static int inherit_size(struct zq_inherit *in, bool raw, struct zqcow2_create_options *opt)
{
    uint64_t size = in->o.h.virtual_size;
    int rc = raw ? zq_opening_raw_size(in->o.be, &size) : 0;

    if (opt->virtual_size || opt->flags & ZQCOW2_CREATE_EMPTY)
        return rc;
    opt->virtual_size = size;
    opt->flags |= size ? 0u : ZQCOW2_CREATE_EMPTY;
    return rc;
}

/* What it is is not guessed: only a zoned image needs no format, for nothing else is taken then. */
static int no_format(struct zqcow2_error *err)
{
    return zq_fail(err, -EINVAL,
                   "it has no zones, so its format must be given in backing_format (the command: "
                   "-F raw|qcow2)");
}

static int take(struct zq_inherit *in, struct zqcow2_create_options *opt, struct zqcow2_error *err)
{
    bool raw = opt->backing_format && !strcmp(opt->backing_format, "raw");
    int rc = zq_be_flush(in->o.be);

    if (rc == 0 && !raw)
        rc = zq_opening_header(&in->o);
    if (rc == ZQCOW2_ENOTQCOW2 && !opt->backing_format)
        return no_format(err);
    if (rc < 0)
        return rc;
    if (in->o.g.layout)
        return inherit_zones(in, opt, err);
    if (!opt->backing_format)
        return no_format(err);
    if (opt->zone_size)
        return zq_fail(err, -EINVAL, "zone.size %" PRIu64 ": the backing file has no zones",
                       opt->zone_size);
    return inherit_size(in, raw, opt);
}

int zq_inherit_begin(struct zq_inherit *in, struct zqcow2_backend *be,
                     struct zqcow2_create_options *opt, const struct zqcow2_hooks *hooks,
                     struct zqcow2_error *err)
{
    struct opening top = {.be = be, .opt = ZQCOW2_OPEN_OPTIONS_INIT, .err = err, .hooks = *hooks};
    struct zqcow2_backing b = ZQCOW2_BACKING_INIT;
    int rc;

    if (!opt->backing_name || !opt->resolve)
        return 0;
    strcpy(b.name, opt->backing_name);
    strcpy(b.format, opt->backing_format ? opt->backing_format : "qcow2");
    top.opt.resolve = opt->resolve;
    top.opt.resolve_arg = opt->resolve_arg;
    in->o = (struct opening){.err = err, .hooks = *hooks};
    rc = zq_opening_resolve(&top, &b, 1, &in->o.be);
    if (rc < 0)
        in->o.be = NULL;
    else
        rc = take(in, opt, err);
    return rc < 0 ? zq_opening_blame(err, "backing file", b.name, rc) : 0;
}

void zq_inherit_end(struct zq_inherit *in)
{
    if (!in->o.be)
        return;
    zq_free(&in->o.hooks, in->pointers, zq_pointers_bytes(&in->o.g));
    zq_free(&in->o.hooks, in->states, zq_states_bytes(in->o.h.states_zones));
    (void)zq_be_leave(in->o.be);
    zqcow2_backend_close(in->o.be);
}

void zq_inherit_zone(const struct zq_inherit *in, uint32_t zone, struct zq_entry *e)
{
    (void)zq_entry_decode(&in->o.g, zone, in->pointers + zq_entries_bytes(zone), e);
}

/* What is void there is not taken: the new image begins with what the old one shows. */
uint8_t zq_inherit_state(const struct zq_inherit *in, uint32_t zone)
{
    struct zq_entry e;

    if (!in->states)
        return 0;
    zq_inherit_zone(in, zone, &e);
    return zq_stored_holds(in->states[zone], !e.full && e.wp == zq_geometry_start(&in->o.g, zone));
}

int zq_inherit_descriptors(const struct zq_inherit *in, uint32_t zone, uint32_t n, uint8_t *buf)
{
    uint32_t size = in->o.g.descriptor_size;
    uint64_t at = in->o.h.descriptors_offset + (uint64_t)zone * size;
    int rc = 0;

    memset(buf, 0, (size_t)n * size);
    for (uint32_t i = 0; rc == 0 && i < n; i++) {
        if (zq_inherit_state(in, zone + i) & ZQ_STORED_DESCRIBED)
            rc = zq_be_read(in->o.be, buf + (size_t)i * size, size, at + (uint64_t)i * size);
    }
    return rc;
}
