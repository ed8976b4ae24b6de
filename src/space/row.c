/* SPDX-License-Identifier: MIT */
/* Clusters in a row. */
#include "space/row.h"

#include <errno.h>
#include "base/report.h"
#include "space/admit.h"

int zq_row_take(struct zq_core *c, struct zq_op *op, struct zq_row *row, uint64_t n,
                const char *what, struct zqcow2_error *err)
{
    struct zq_found f;
    int rc = zq_may_allocate(c, op);

    if (rc || !n || row->freed)
        return rc;
    rc = n > UINT32_MAX ? -EFBIG : zq_alloc_find_row(&c->alloc, &op->g, (uint32_t)n, &f);
    if (rc == -EFBIG)
        return zq_fail(err, rc, "%s need too many contiguous clusters", what);
    if (rc == 0)
        rc = zq_alloc_cover(&c->alloc, &op->g, (f.cluster + n) << c->cluster_bits);
    if (rc)
        return rc;
    row->freed = zq_record_new(&c->alloc);
    if (!row->freed)
        return -ENOMEM;
    zq_assert_k(N8, c->exclusive && f.count >= n);
    zq_alloc_take(&c->alloc, &f, (uint32_t)n);
    zq_cache_release(&c->cache, &op->g);
    row->host = f.cluster << c->cluster_bits;
    row->clusters = n;
    return 0;
}

/* Through the quarantine, whose janitor waits for readers of the file that may be on their way. */
void zq_row_leave(struct zq_core *c, struct zq_row *row, bool used)
{
    if (row->freed && !used) {
        row->freed->cluster = row->host >> c->cluster_bits;
        row->freed->count = row->clusters;
        row->freed->punch = true;
        zq_alloc_quarantine(&c->alloc, row->freed, false);
        c->want_janitor = true;
    } else {
        zq_record_drop(&c->alloc, row->freed);
    }
    row->freed = NULL;
}
