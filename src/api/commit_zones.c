/* SPDX-License-Identifier: MIT */
/*
 * The zones of an image that is committed into an image with the same zones (S15).
 *
 * A zone in which the image maps all that is below the write pointer is rewritten: nothing of what
 * is below is seen in it, so it may be reset there. In any other one the two have the same bytes up
 * to the lower pointer, and what is beyond is appended. Both can be begun again: until the image is
 * emptied it has all that is overwritten.
 *
 * Zones are reset first, and those that become FULL come before those that stay active. So no more
 * of them are active on the way than one more than afterwards.
 */
#include <errno.h>
#include <inttypes.h>
#include "api/commit.h"
#include "api/zones_below.h"
#include "base/report.h"

enum {
    DIFFERS = 1, /* the write pointer will move */
    REWRITE = 2, /* from its start on */
    BECOMES_FULL = 4
};

static struct zq_zone_view above(const struct commit *m, uint32_t zone)
{
    return zq_image_zone(m->img, zone);
}

static struct zq_zone_view below(const struct commit *m, uint32_t zone)
{
    return zq_image_zone(m->below, zone);
}

static bool is_partly_written(const struct zq_zone_view *z)
{
    return z->wp != z->start && z->wp != z->end;
}

/* ---- the plan ---- */

/* S12: what is inherited lies below the other pointer, which nobody has moved further. */
static int changed(const struct commit *m, uint32_t zone, const struct zq_zone_view *z,
                   const struct zq_zone_view *b)
{
    return zq_fail(m->err, ZQCOW2_ECORRUPT,
                   "zone %" PRIu32 " has changed: its write pointer is 0x%" PRIx64
                   ", that of the image above it 0x%" PRIx64,
                   zone, b->wp, z->wp);
}

static int plan_zone(struct commit *m, uint32_t zone)
{
    struct zq_zone_view z = above(m, zone), b = below(m, zone);
    uint8_t *plan = &m->plan[zone];
    uint64_t inherited;
    int rc = zq_find_inherited(m->img, &z, &inherited);

    if (rc < 0)
        return rc;
    if (inherited == z.start)
        *plan = REWRITE | (z.wp != z.start || b.wp != b.start ? DIFFERS : 0);
    else if (inherited > b.wp || b.wp > z.wp)
        return changed(m, zone, &z, &b);
    else
        *plan = b.wp != z.wp ? DIFFERS : 0;
    if (*plan & DIFFERS && z.wp == z.end)
        *plan |= BECOMES_FULL;
    return 0;
}

/* How many zones will be active, or are once in a while, at most. */
static uint32_t count_active(const struct commit *m)
{
    uint32_t kept = 0, active = 0, one_more = 0;

    for (uint32_t i = m->info.nr_conventional; i < m->info.nr_zones; i++) {
        struct zq_zone_view z = above(m, i);
        bool closed = z.stored & ZQ_STORED_CLOSED, partly = is_partly_written(&z);

        active += closed || partly;
        kept += closed || (partly && !(m->plan[i] & REWRITE));
        if ((m->plan[i] & (REWRITE | BECOMES_FULL)) == (REWRITE | BECOMES_FULL))
            one_more = 1;
    }
    return (uint32_t)zq_max(active, kept + one_more);
}

/* What could refuse the last step is asked before the first one. */
static int check_states(const struct commit *m)
{
    bool any = false;

    for (uint32_t z = m->info.nr_conventional; z < m->info.nr_zones; z++)
        any |= above(m, z).stored != 0;
    return !any || zq_image_may_store(m->below) ?
               0 :
               zq_fail(m->err, ZQCOW2_EFEATURE,
                       "its header has no room for the zone states that the image stores");
}

static int check_active(const struct commit *m, uint32_t most)
{
    uint32_t active = most ? count_active(m) : 0;

    return active <= most ?
               0 :
               zq_fail(m->err, ZQCOW2_EZONE_ACTIVE,
                       "%" PRIu32 " zones would be active, max_active_zones is %" PRIu32, active,
                       most);
}

int zq_commit_plan_zones(struct commit *m)
{
    struct zqcow2_info i = ZQCOW2_INFO_INIT;
    int rc = 0;

    zq_image_info(m->below, &i);
    if (!zq_same_zones(&i, &m->info) || i.descriptor_extension != m->info.descriptor_extension)
        return zq_fail(m->err, ZQCOW2_EFEATURE, "its zones are not those of the image above");
    m->plan = zq_zalloc(&m->hooks, m->info.nr_zones);
    if (!m->plan)
        return -ENOMEM;
    for (uint32_t z = i.nr_conventional; rc == 0 && z < i.nr_zones; z++)
        rc = plan_zone(m, z);
    if (rc == 0)
        rc = check_states(m);
    return rc < 0 ? rc : check_active(m, i.max_active_zones);
}

/* ---- the zones ---- */

static int blame(const struct commit *m, int rc)
{
    return rc < 0 ? zq_image_blame_below(m->err, &m->what, rc) : 0;
}

/* The zone begins there anew, with what the layer has of it: also if that is nothing but this. */
static bool is_described(const struct commit *m, uint32_t zone)
{
    return m->plan[zone] & REWRITE && above(m, zone).stored & ZQ_STORED_DESCRIBED;
}

/*
 * A state that is stored there could refuse what is to be done. It is set again at the end. Nor
 * does an empty zone keep an extension, which may be another one (R16).
 */
static int clear_state(struct commit *m, uint32_t zone)
{
    struct zq_zone_view z = above(m, zone), b = below(m, zone);

    if (!b.stored || (b.stored == z.stored && !(m->plan[zone] & DIFFERS) && !is_described(m, zone)))
        return 0;
    return blame(
        m, zqcow2_zone_set_state(m->below, b.start, ZQCOW2_ZONE_NOT_WP | ZQCOW2_ZONE_PERSIST));
}

static int reset(struct commit *m, uint32_t zone)
{
    struct zq_zone_view b = below(m, zone);

    if (!(m->plan[zone] & REWRITE) || b.wp == b.start)
        return 0;
    return blame(m,
                 zqcow2_zone_reset(m->below, b.start,
                                   zq_min(m->info.zone_size, m->info.virtual_size - b.start), 0));
}

/*
 * In front of all data, for only an empty zone takes an extension; this makes it active, which the
 * plan has counted. A commit that stops behind it is begun again with a zone that is emptied first.
 */
static int describe(const struct commit *m, uint32_t zone)
{
    struct zq_zone_view b = below(m, zone);
    uint32_t nr = 1;
    int rc;

    if (!is_described(m, zone) || b.stored & ZQ_STORED_DESCRIBED)
        return 0;
    zq_assert(b.wp == b.start && m->info.descriptor_extension <= ZQ_COMMIT_PIECE);
    rc = zqcow2_zone_get_descriptors(m->img, b.start, m->buf, &nr);
    if (rc < 0)
        return rc;
    return blame(
        m, zqcow2_zone_set_descriptor(m->below, b.start, m->buf, m->info.descriptor_extension));
}

static int append(struct commit *m, uint32_t zone)
{
    struct zq_zone_view z = above(m, zone), b = below(m, zone);
    int rc = describe(m, zone);

    zq_assert(b.wp <= z.wp); /* the plan has refused anything else */
    m->done += b.wp - b.start;
    return rc < 0 ? rc : zq_commit_range(m, b.wp, z.wp);
}

/* Those that are active there already give that up before others need it. */
static int append_full(struct commit *m, uint32_t zone)
{
    bool wanted = (m->plan[zone] & (BECOMES_FULL | REWRITE)) == BECOMES_FULL;

    return wanted ? append(m, zone) : 0;
}

static int rewrite_full(struct commit *m, uint32_t zone)
{
    bool wanted = (m->plan[zone] & (BECOMES_FULL | REWRITE)) == (BECOMES_FULL | REWRITE);

    return wanted ? append(m, zone) : 0;
}

static int append_rest(struct commit *m, uint32_t zone)
{
    return m->plan[zone] & DIFFERS && !(m->plan[zone] & BECOMES_FULL) ? append(m, zone) : 0;
}

/* CLOSED comes before a state that hides it. */
static int store_state(struct commit *m, uint32_t zone)
{
    struct zq_zone_view z = above(m, zone), b = below(m, zone);
    unsigned forced = z.stored & ZQ_STORED_FORCED;
    int rc = 0;

    if (z.stored == b.stored)
        return 0;
    if (z.stored & ZQ_STORED_CLOSED && is_described(m, zone))
        rc = describe(m, zone);
    else if (z.stored & ZQ_STORED_CLOSED)
        rc = zqcow2_zone_set_state(m->below, b.start, ZQCOW2_ZONE_CLOSED | ZQCOW2_ZONE_PERSIST);
    if (rc == 0 && forced)
        rc = zqcow2_zone_set_state(m->below, b.start, forced | ZQCOW2_ZONE_PERSIST);
    return blame(m, rc);
}

/* So the progress ends at the size of the device. */
static uint64_t count_settled(const struct commit *m)
{
    uint64_t sequential = m->info.nr_conventional * m->info.zone_size;
    uint64_t settled = m->info.virtual_size - zq_min(sequential, m->info.virtual_size);

    for (uint32_t i = m->info.nr_conventional; i < m->info.nr_zones; i++) {
        if (m->plan[i] & DIFFERS)
            settled -= above(m, i).wp - above(m, i).start;
    }
    return settled;
}

int zq_commit_zones(struct commit *m)
{
    static int (*const passes[])(struct commit * m, uint32_t zone) = {
        clear_state, reset, append_full, rewrite_full, append_rest, store_state};
    uint64_t sequential = m->info.nr_conventional * m->info.zone_size;
    int rc;

    m->done = count_settled(m);
    rc = zq_commit_range(m, 0, zq_min(sequential, m->info.virtual_size));

    for (size_t p = 0; rc == 0 && p < sizeof(passes) / sizeof(passes[0]); p++) {
        for (uint32_t i = m->info.nr_conventional; rc == 0 && i < m->info.nr_zones; i++)
            rc = passes[p](m, i);
    }
    return rc;
}
