/* SPDX-License-Identifier: MIT */
/* Stored states and descriptor extensions, from the zones of one image to those of another. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "states.h"

/* Of an image; such a device has failed in part. Reports it. */
static bool can_keep(const struct zt_states *s, const struct zqcow2_zone *z)
{
    if (!s->keep || !s->to->img || z->type != ZQCOW2_ZONE_CONVENTIONAL)
        return true;
    zt_error("%s: the conventional zone at %" PRIu64 " is %s, and no image can have such a zone",
             s->from->target.path, z->start,
             z->state == ZQCOW2_ZONE_RDONLY ? "read-only" : "offline");
    return false;
}

static int release(struct zt_states *s, uint64_t n)
{
    struct zqcow2_zone z;
    uint32_t nr = 1;
    int rc = zt_disk_report(s->from, n * s->from->info.zone_size, &z, &nr);

    if (rc < 0 || (z.state != ZQCOW2_ZONE_RDONLY && z.state != ZQCOW2_ZONE_OFFLINE))
        return rc;
    if (!can_keep(s, &z))
        return 1;
    s->forced[n] = z.state;
    return s->from->img ? zqcow2_zone_set_state(s->from->img, z.start, ZQCOW2_ZONE_NOT_WP) : 0;
}

/* A run that was stopped at its very end has restored states already. */
static int release_again(struct zt_states *s, uint64_t n)
{
    struct zqcow2_zone z;
    uint32_t nr = 1;
    int rc = zt_output_report(s->to, n * s->from->info.zone_size, &z, &nr);

    if (rc < 0 || (z.state != ZQCOW2_ZONE_RDONLY && z.state != ZQCOW2_ZONE_OFFLINE))
        return rc;
    return zqcow2_zone_set_state(s->to->img, z.start, ZQCOW2_ZONE_NOT_WP | ZQCOW2_ZONE_PERSIST);
}

int zt_states_release(struct zt_states *s)
{
    uint32_t ours = s->from->info.descriptor_extension, theirs = s->to->info.descriptor_extension;
    int rc = 0;

    s->forced = calloc(s->from->info.nr_zones, 1);
    if (ours && theirs)
        s->extension = calloc(1, ours > theirs ? ours : theirs);
    if (!s->forced || (ours && theirs && !s->extension))
        return -ENOMEM;
    for (uint64_t n = 0; rc == 0 && n < s->from->info.nr_zones; n++)
        rc = release(s, n);
    for (uint64_t n = 0; rc == 0 && s->keep && s->to->resumed && n < s->from->info.nr_zones; n++)
        rc = release_again(s, n);
    return rc;
}

/* Zeros follow what is shorter; nobody has asked for less than the source has. */
int zt_states_describe(struct zt_states *s, uint64_t start)
{
    uint32_t nr = 1;
    int rc = s->extension ? zqcow2_zone_get_descriptors(s->from->img, start, s->extension, &nr) : 0;

    if (rc < 0 || !s->extension)
        return rc;
    return zqcow2_zone_set_descriptor(s->to->img, start, s->extension,
                                      s->to->info.descriptor_extension);
}

int zt_states_restore(struct zt_states *s)
{
    const struct zqcow2_info *i = &s->from->info;
    int rc = 0;

    for (uint64_t n = 0; rc == 0 && n < i->nr_zones; n++) {
        if (s->forced[n] && s->to->img)
            rc = zqcow2_zone_set_state(s->to->img, n * i->zone_size,
                                       s->forced[n] | ZQCOW2_ZONE_PERSIST);
    }
    return rc;
}

void zt_states_free(struct zt_states *s)
{
    free(s->forced);
    free(s->extension);
}
