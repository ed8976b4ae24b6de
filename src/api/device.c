/* SPDX-License-Identifier: MIT */
/*
 * Calls for device models. None is a request: what they return is in memory, and each takes the
 * mutex once, for a bounded time.
 */
#include <errno.h>
#include <zqcow2/device.h>
#include "base/mem.h"
#include "base/report.h"
#include "base/sort.h"
#include "image/image.h"

#define ZONES_AT_ONCE 4096u       /* in one hold of the mutex: requests must not wait for more */
#define TABLE_BYTES   (1u << 20)  /* of L2: what a request changes at once; see zqcow2.h */
#define WRITTEN_BYTES (16u << 20) /* of zeros that can only be written */
#define HOST_BLOCK    4096u       /* a page, and the sector of most disks */
#define ALL_STATES    0xe01fu

static uint32_t at_least(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/*
 * Where nothing can be marked, all zeros are written: there the limit is for time, not for tables.
 * A unit that is smaller than a block cannot be named by a request.
 */
static void zeroes(const struct zq_core *c, uint64_t most, struct zqcow2_io_limits *l)
{
    if (c->data_file.raw || !zq_map_may_unlink(&c->map, 0)) {
        l->zeroes_granularity = l->block_size;
        l->max_zeroes = WRITTEN_BYTES;
        return;
    }
    l->zeroes_granularity = (uint32_t)zq_max(zq_l2_unit_bytes(&c->map.form), l->block_size);
    l->max_zeroes = most;
    l->flags |= ZQCOW2_LIMITS_UNMAP;
}

/*
 * Sequential zones are discarded by a reset, and their zeros are written. The block of the host is
 * that of the file with the data: metadata is written by the library, padded as needed.
 */
static void limits(const struct zq_core *c, struct zqcow2_io_limits *l)
{
    uint32_t cluster = (uint32_t)1 << c->cluster_bits;
    uint64_t most = (uint64_t)(TABLE_BYTES >> zq_l2_entry_bits(&c->map.form)) << c->cluster_bits;

    l->block_size = c->block_mask + 1;
    l->physical_block = at_least(HOST_BLOCK, at_least(l->block_size, c->data->be->limits.io_align));
    l->optimal_io = at_least(cluster, l->physical_block);
    l->discard_granularity = at_least(cluster, l->block_size);
    l->zeroes_granularity = l->block_size;
    if (!c->writable)
        return;
    l->max_zeroes = WRITTEN_BYTES;
    if (!c->seq_start)
        return;
    l->flags |= ZQCOW2_LIMITS_DISCARD;
    l->max_discard = most;
    zeroes(c, most, l);
}

int zqcow2_get_io_limits(struct zqcow2_image *img, struct zqcow2_io_limits *to)
{
    struct zqcow2_io_limits l = ZQCOW2_IO_LIMITS_INIT;
    struct zq_core *c = &img->core;
    int rc;

    zq_core_lock(c);
    rc = c->activity == ZQ_ACTIVE ? 0 : ZQCOW2_EINACTIVE;
    if (rc == 0)
        limits(c, &l);
    zq_core_unlock(c);
    return rc < 0 ? rc : zq_return_sized(to, &l, sizeof(l), sizeof(l));
}

/* Under the mutex: while an image is inactive there are no zones to look at. */
static int check_zoned(const struct zq_core *c)
{
    if (c->activity != ZQ_ACTIVE)
        return ZQCOW2_EINACTIVE;
    return c->zoned ? 0 : ZQCOW2_ENOTZONED;
}

/*
 * One hold of the mutex, so what is found shows one moment. *off moves even if nothing is found, or
 * a caller would not get past many zones in other states. It moves to the end when all that the
 * device has of these states are found; to count them from the first zone on takes no look at any.
 */
static int find(struct zq_core *c, uint64_t *off, uint32_t states, struct zqcow2_zone *zones,
                uint32_t *nr)
{
    uint32_t room = zones ? *nr : UINT32_MAX, all = zq_zones_in(&c->zones, states);
    uint32_t found = 0, i, end;

    if (*off >= c->size)
        return -EINVAL;
    i = zq_zone_of(&c->zones, *off);
    end = (uint32_t)zq_min((uint64_t)i + ZONES_AT_ONCE, c->zones.g.nr_zones);
    if (!zones && !i)
        found = all;
    for (; i < end && found < room && found < all; i++) {
        if (!(states >> zq_zone_state(&c->zones.v[i]) & 1))
            continue;
        if (zones)
            zq_zone_fill_report(&c->zones, i, &zones[found]);
        found++;
    }
    *off = found < all && i < c->zones.g.nr_zones ? zq_geometry_start(&c->zones.g, i) : c->size;
    *nr = found;
    return 0;
}

int zqcow2_zone_find(struct zqcow2_image *img, uint64_t *off, uint32_t states,
                     struct zqcow2_zone *zones, uint32_t *nr)
{
    struct zq_core *c = &img->core;
    int rc;

    zq_core_lock(c);
    rc = check_zoned(c);
    if (rc == 0 && states & ~ALL_STATES)
        rc = -EINVAL;
    if (rc == 0)
        rc = find(c, off, states ? states : ALL_STATES, zones, nr);
    zq_core_unlock(c);
    return rc;
}

static bool less(const void *a, const void *b, const void *arg)
{
    (void)arg;
    return *(const uint64_t *)a < *(const uint64_t *)b;
}

/* A resize may have cut off zones that are in the list. */
static uint32_t to_offsets(const struct zq_core *c, uint64_t *v, uint32_t n)
{
    uint32_t left = 0;

    for (uint32_t i = 0; i < n; i++) {
        if (v[i] < c->zones.g.nr_zones)
            v[left++] = zq_geometry_start(&c->zones.g, (uint32_t)v[i]);
    }
    return left;
}

int zqcow2_zone_changes(struct zqcow2_image *img, uint64_t *since, uint64_t *offs, uint32_t *nr)
{
    struct zq_core *c = &img->core;
    int rc;

    zq_core_lock(c);
    rc = check_zoned(c);
    if (rc == 0)
        rc = zq_changes_read(&c->changes, since, offs, nr);
    if (rc == 0)
        *nr = to_offsets(c, offs, *nr);
    zq_core_unlock(c);
    if (rc == 0)
        zq_sort(offs, *nr, sizeof(*offs), less, NULL);
    return rc;
}
