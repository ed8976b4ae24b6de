/* SPDX-License-Identifier: MIT */
/*
 * Memory of the caller that the ring knows: its pages are found and pinned once, when it is
 * registered, and not for every direct transfer. The kernel keeps using these pages whatever is
 * mapped at their addresses later, so only the caller can say when they go.
 */
#include <errno.h>
#include <string.h>

#include "backend/uring_int.h"

int zq_uring_area(const struct zq_uring *u, const void *p, size_t n)
{
    uintptr_t at = (uintptr_t)p;

    for (unsigned i = 0; i < u->areas; i++) {
        uintptr_t base = (uintptr_t)u->area[i].iov_base;

        if (at >= base && at - base <= u->area[i].iov_len && n <= u->area[i].iov_len - (at - base))
            return (int)i;
    }
    return -1;
}

void zq_uring_forget_areas(struct zq_uring *u)
{
    if (u->areas)
        (void)io_uring_unregister_buffers(&u->ring);
    u->areas = 0;
}

bool zq_uring_areas_are_valid(const struct iovec *area, unsigned n)
{
    if (n > ZQ_URING_AREAS || (n && !area))
        return false;
    for (unsigned i = 0; i < n; i++)
        if (!area[i].iov_base || !area[i].iov_len || area[i].iov_len > ZQ_URING_AREA_MOST)
            return false;
    return true;
}

/*
 * Before Linux 5.13 the kernel waits here until its ring is empty, which it never is: it watches
 * wake_fd.
 */
int zq_uring_set_areas(struct zq_uring *u, const struct iovec *area, unsigned n)
{
    int rc;

    if (u->in_ring || u->queue.head)
        return -EBUSY;
    zq_uring_forget_areas(u);
    if (!n)
        return 0;
    if (u->broken || !(u->ring.features & IORING_FEAT_RSRC_TAGS))
        return -EOPNOTSUPP;
    rc = io_uring_register_buffers(&u->ring, area, n);
    if (rc < 0)
        return rc;
    memcpy(u->area, area, n * sizeof(*area));
    u->areas = n;
    return 0;
}
