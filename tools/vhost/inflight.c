/* SPDX-License-Identifier: MIT */
/* What is in flight, in memory that outlives this process. */
#include "vhost/inflight.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static size_t ring_bytes(uint16_t queue_size)
{
    size_t bytes = sizeof(struct vhost_inflight_ring) +
                   (size_t)queue_size * sizeof(struct vhost_inflight_entry);

    return (bytes + 63) / 64 * 64;
}

static bool can_be(const struct vhost_inflight_area *area)
{
    return area->queues && area->queue_size && area->queue_size <= VHOST_RING_MAX;
}

static size_t area_bytes(const struct vhost_inflight_area *area)
{
    return area->queues * ring_bytes(area->queue_size) + sizeof(struct vhost_inflight_changes);
}

static int map_area(struct vhost_inflight *f, const struct vhost_inflight_area *area, int fd)
{
    size_t size = area_bytes(area);
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)area->offset);

    if (map == MAP_FAILED)
        return -errno;
    vhost_inflight_close(f);
    *f = (struct vhost_inflight){
        .map = map, .size = size, .queues = area->queues, .queue_size = area->queue_size};
    f->changes = (void *)(f->map + size - sizeof(*f->changes));
    return 0;
}

int vhost_inflight_make(struct vhost_inflight *f, struct vhost_inflight_area *area)
{
    int fd = can_be(area) ? memfd_create("zqcow2-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING) : -1;
    int rc = fd < 0 ? -EINVAL : 0;

    area->offset = 0;
    area->size = rc < 0 ? 0 : area_bytes(area);
    if (rc == 0 && (ftruncate(fd, (off_t)area->size) ||
                    fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL)))
        rc = -errno;
    if (rc == 0)
        rc = map_area(f, area, fd);
    if (rc < 0 && fd >= 0)
        close(fd);
    return rc < 0 ? rc : fd;
}

int vhost_inflight_map(struct vhost_inflight *f, const struct vhost_inflight_area *area, int fd)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    struct stat st;
    size_t size = can_be(area) ? area_bytes(area) : 0;

    if (!size || area->size < size || area->offset % page || fd < 0 || fstat(fd, &st) ||
        area->offset > (uint64_t)st.st_size || (uint64_t)st.st_size - area->offset < area->size)
        return -EINVAL;
    return map_area(f, area, fd);
}

void vhost_inflight_close(struct vhost_inflight *f)
{
    if (f->map)
        munmap(f->map, f->size);
    f->map = NULL;
}

/* ---- changes of all rings ---- */

void vhost_inflight_changed(struct vhost_inflight *f)
{
    if (f->map)
        __atomic_fetch_add(&f->changes->answered, 1, __ATOMIC_ACQ_REL);
}

uint32_t vhost_inflight_seen(const struct vhost_inflight *f)
{
    return f->map ? __atomic_load_n(&f->changes->answered, __ATOMIC_ACQUIRE) : 0;
}

/* Flushes may end in another order than they began in. */
void vhost_inflight_flushed(struct vhost_inflight *f, uint32_t seen)
{
    uint32_t now = f->map ? __atomic_load_n(&f->changes->flushed, __ATOMIC_ACQUIRE) : 0;

    while (f->map && (int32_t)(seen - now) > 0) {
        if (__atomic_compare_exchange_n(&f->changes->flushed, &now, seen, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE))
            return;
    }
}

bool vhost_inflight_lacks_flush(const struct vhost_inflight *f)
{
    return f->map && f->changes->flushed != vhost_inflight_seen(f);
}

/* ---- one ring ---- */

static void start_afresh(volatile struct vhost_inflight_ring *a, const struct vhost_ring *r)
{
    for (uint16_t i = 0; i < r->num; i++)
        a->entry[i].inflight = 0;
    a->features = 0;
    a->desc_num = r->num;
    a->last_batch_head = 0;
    a->used_idx = r->used_idx;
    a->version = 1;
}

/* Those that the used ring has, but that the server had no time to strike out. */
static void strike_answered(volatile struct vhost_inflight_ring *a, const struct vhost_ring *r)
{
    uint16_t n = (uint16_t)(r->used_idx - a->used_idx), head = a->last_batch_head;

    for (; n && n <= r->num && head < r->num; n--) {
        a->entry[head].inflight = 0;
        head = a->entry[head].next;
    }
    a->used_idx = r->used_idx;
}

struct popped {
    uint64_t counter;
    uint16_t head;
};

static int by_counter(const void *a, const void *b)
{
    const struct popped *x = a, *y = b;

    return x->counter < y->counter ? -1 : x->counter > y->counter;
}

static unsigned collect(struct vhost_track *t, const struct vhost_ring *r, uint16_t *heads)
{
    struct popped all[VHOST_RING_MAX];
    unsigned n = 0;

    for (uint16_t i = 0; i < r->num; i++) {
        if (t->area->entry[i].inflight == 1)
            all[n++] = (struct popped){t->area->entry[i].counter, i};
    }
    qsort(all, n, sizeof(all[0]), by_counter);
    for (unsigned i = 0; i < n; i++)
        heads[i] = all[i].head;
    t->counter = n ? all[n - 1].counter + 1 : 0;
    return n;
}

unsigned vhost_track_begin(struct vhost_track *t, struct vhost_inflight *f, unsigned index,
                           struct vhost_ring *r, uint16_t *heads)
{
    unsigned n;

    *t = (struct vhost_track){0};
    if (!f->map || index >= f->queues || r->num > f->queue_size)
        return 0;
    t->area = (volatile void *)(f->map + index * ring_bytes(f->queue_size));
    if (t->area->version != 1 || t->area->desc_num != r->num) {
        start_afresh(t->area, r);
        return 0;
    }
    strike_answered(t->area, r);
    n = collect(t, r, heads);
    r->last_avail = (uint16_t)(r->used_idx + n);
    return n;
}

void vhost_track_popped(struct vhost_track *t, uint16_t head)
{
    if (!t->area)
        return;
    t->area->entry[head].counter = t->counter++;
    __atomic_thread_fence(__ATOMIC_RELEASE);
    t->area->entry[head].inflight = 1;
}

void vhost_track_answers(struct vhost_track *t, uint16_t head)
{
    if (!t->area)
        return;
    t->area->entry[head].next = t->area->last_batch_head;
    t->area->last_batch_head = head;
    __atomic_thread_fence(__ATOMIC_RELEASE);
}

void vhost_track_answered(struct vhost_track *t, uint16_t head, uint16_t used_idx)
{
    if (!t->area)
        return;
    __atomic_thread_fence(__ATOMIC_RELEASE);
    t->area->entry[head].inflight = 0;
    __atomic_thread_fence(__ATOMIC_RELEASE);
    t->area->used_idx = used_idx;
}
