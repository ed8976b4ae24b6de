/* SPDX-License-Identifier: MIT */
/*
 * The end of the device, and that of its data file.
 *
 * A data file is as long as the device, or longer (D1). So it grows before the header says that the
 * device has, and is cut when nothing in the image leads there any more.
 */
#include "ops/resize_ends.h"

#include <errno.h>
#include "base/report.h"
#include "device/backend.h"
#include "space/admit.h"

/* ---- tables ---- */

/* A table that maps nothing any more; its slices are clean. */
static int drop_table(struct zq_core *c, uint64_t index)
{
    uint64_t entry = c->map.l1.v[index], host = zq_entry_host(entry);
    struct zq_freed *f = zq_record_new(&c->alloc);

    if (!f)
        return -ENOMEM;
    zq_assert_k(R12, host && c->marked);
    f->cluster = host >> c->cluster_bits;
    f->count = 1;
    f->punch = zq_l1_is_own(entry);
    zq_cache_forget(&c->cache, host, (uint64_t)1 << c->cluster_bits);
    zq_memtable_set(&c->map.l1, index, 0);
    zq_alloc_quarantine(&c->alloc, f, true);
    return 0;
}

int zq_resize_drop_tables(struct zq_core *c)
{
    int rc = 0;

    for (uint64_t i = zq_l1_needed(&c->map.form, c->size); rc == 0 && i < c->map.l1.entries; i++) {
        if (c->map.l1.v[i])
            rc = drop_table(c, i);
    }
    c->alloc.tables++;
    return rc;
}

/* ---- the data file ---- */

/*
 * What lay behind the end of the device was nobody's, and would be seen in the last cluster, and in
 * all of a raw file (G4): it is cut off. A file whose length has to be aligned keeps a little of
 * it.
 */
int zq_resize_grow_data(struct zq_core *c, uint64_t size)
{
    struct zqcow2_backend *be = c->data->be;
    uint64_t has, from = c->size, to = zq_min(size, zq_align_up(from, be->limits.io_align));
    int rc = zq_be_length(be, &has);

    if (rc == 0 && has > from)
        rc = zq_be_truncate(be, from);
    if (rc == 0)
        rc = zq_be_truncate(be, size);
    if (rc == 0 && to > from)
        rc = zq_be_write_zeros(be, from, to - from);
    return rc == 0 ? zq_be_flush(be) : rc;
}

int zq_resize_cut_data(struct zq_core *c)
{
    return zq_be_truncate(c->data->be, c->size);
}

/* As far as one slice has it: the first cluster is mapped already, or all that are empty become so.
 */
static int map_slice(struct zq_core *c, struct zq_op *op, uint64_t *at, uint64_t end)
{
    uint64_t most = zq_min(end, zq_map_slice_end(&c->map, *at)) - *at;
    struct zq_slice *s;
    uint32_t n;
    int rc = zq_map_slice(&c->map, &op->g, *at, &s);

    if (rc)
        return rc;
    n = zq_map_count_empty(&c->map, s, *at,
                           (uint32_t)zq_div_up(most, (uint64_t)1 << c->cluster_bits));
    if (n)
        rc = zq_cache_writable(&c->cache, &op->g, s, NULL);
    if (rc)
        return rc;
    zq_assert_k(D1, c->map.form.external && *at >= c->size);
    if (n)
        zq_map_link(&c->map, s, *at, *at, n);
    zq_cache_release(&c->cache, &op->g);
    *at += (uint64_t)zq_max(n, 1) << c->cluster_bits;
    return 0;
}

int zq_resize_map_raw(struct zq_core *c, struct zq_op *op, uint64_t *at, uint64_t end)
{
    int rc = zq_may_allocate(c, op);

    *at = zq_align_up(*at, (uint64_t)1 << c->cluster_bits);
    while (rc == 0 && c->data_file.raw && *at < end) {
        rc = zq_map_table(&c->map, &op->g, *at);
        if (rc == 0)
            rc = map_slice(c, op, at, end);
    }
    return rc;
}
