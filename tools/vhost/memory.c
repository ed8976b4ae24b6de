/* SPDX-License-Identifier: MIT */
/* Guest memory: the regions that the front-end shares. */
#include "vhost/memory.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static bool wraps(uint64_t at, uint64_t size)
{
    return at + size < at;
}

static bool overlaps(const struct vhost_memory *m, const struct vhost_mem_region *r)
{
    for (unsigned i = 0; i < m->n; i++) {
        if (r->guest < m->region[i].guest + m->region[i].size &&
            m->region[i].guest < r->guest + r->size)
            return true;
    }
    return false;
}

/* The file must hold the region: a page behind its end would be a SIGBUS later. */
static bool can_be(const struct vhost_memory *m, const struct vhost_mem_region *r, int fd)
{
    struct stat st;

    return r->size && !wraps(r->guest, r->size) && !wraps(r->user, r->size) &&
           !wraps(r->offset, r->size) && r->offset + r->size <= SIZE_MAX / 2 && !overlaps(m, r) &&
           fstat(fd, &st) == 0 && r->offset + r->size <= (uint64_t)st.st_size;
}

/* From the page that the region begins in; huge pages ask for the start of the file. */
static void *map_region(const struct vhost_mem_region *r, int fd, uint64_t *skip, size_t *mapped)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    void *map;

    *skip = r->offset % page;
    *mapped = (size_t)(r->size + *skip);
    map = mmap(NULL, *mapped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
               (off_t)(r->offset - *skip));
    if (map != MAP_FAILED || errno != EINVAL)
        return map;
    *skip = r->offset;
    *mapped = (size_t)(r->size + r->offset);
    return mmap(NULL, *mapped, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
}

int vhost_memory_add(struct vhost_memory *m, const struct vhost_mem_region *r, int fd)
{
    struct vhost_region *to = &m->region[m->n];
    uint64_t skip;
    size_t mapped;
    void *map;

    if (m->n == VHOST_SLOTS)
        return -ENOSPC;
    if (fd < 0 || !can_be(m, r, fd))
        return -EINVAL;
    map = map_region(r, fd, &skip, &mapped);
    if (map == MAP_FAILED)
        return -errno;
    madvise(map, mapped, MADV_DONTDUMP);
    *to = (struct vhost_region){r->guest, r->size, r->user, (uint8_t *)map + skip, map, mapped};
    m->n++;
    return 0;
}

int vhost_memory_remove(struct vhost_memory *m, const struct vhost_mem_region *r)
{
    for (unsigned i = 0; i < m->n; i++) {
        struct vhost_region *have = &m->region[i];

        if (have->guest == r->guest && have->user == r->user && have->size == r->size) {
            munmap(have->map, have->mapped);
            *have = m->region[--m->n];
            return 0;
        }
    }
    return -EINVAL;
}

void vhost_memory_clear(struct vhost_memory *m)
{
    while (m->n)
        m->n--, munmap(m->region[m->n].map, m->region[m->n].mapped);
}

uint8_t *vhost_memory_user(const struct vhost_memory *m, uint64_t user, uint64_t size)
{
    for (unsigned i = 0; i < m->n; i++) {
        const struct vhost_region *r = &m->region[i];

        if (user >= r->user && user - r->user < r->size && size <= r->size - (user - r->user))
            return r->at + (user - r->user);
    }
    return NULL;
}

uint64_t vhost_memory_guest(const struct vhost_memory *m, uint64_t guest, uint64_t size,
                            uint8_t **at)
{
    for (unsigned i = 0; i < m->n; i++) {
        const struct vhost_region *r = &m->region[i];
        uint64_t skip = guest - r->guest;

        if (guest >= r->guest && skip < r->size) {
            *at = r->at + skip;
            return size < r->size - skip ? size : r->size - skip;
        }
    }
    return 0;
}
