/* SPDX-License-Identifier: MIT */
/* Changes answered and changes flushed, in memory that outlives the server. */
#include "ublk/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "serve/kinds.h"

struct ublk_ledger_page {
    uint64_t changed, flushed; /* the number of changes, from the first server on */
    struct ublk_ledger_zones zones;
};

static int map_page(struct ublk_ledger *l, int fd)
{
    void *p = mmap(NULL, sizeof(*l->page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (p == MAP_FAILED)
        return -errno;
    l->page = p;
    return 0;
}

/* The page of a file that is new holds zeros. */
static int begin(struct ublk_ledger *l, const struct ublk_ledger_zones *zones, bool missing)
{
    if (missing) {
        l->page->zones = *zones;
        l->page->changed = 1;
    }
    l->owed = l->page->changed != l->page->flushed ? l->page->changed : 0;
    return memcmp(&l->page->zones, zones, sizeof(*zones)) ? -ESTALE : 0;
}

int ublk_ledger_open(struct ublk_ledger *l, uint32_t id, const struct ublk_ledger_zones *zones,
                     bool fresh)
{
    char path[SERVE_STATE_PATH];
    struct stat st;
    int fd, rc;
    bool missing;

    serve_state_beside(path, &ublk_kind, id, SERVE_LEDGER_SUFFIX);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | (fresh ? O_TRUNC : 0), 0600);
    if (fd < 0)
        return -errno;
    missing = !fresh && !fstat(fd, &st) && st.st_size < (off_t)sizeof(*l->page);
    rc = ftruncate(fd, sizeof(*l->page)) ? -errno : map_page(l, fd);
    close(fd);
    if (rc == 0 && fresh)
        l->page->zones = *zones;
    return rc < 0 ? rc : begin(l, zones, missing);
}

void ublk_ledger_close(struct ublk_ledger *l)
{
    if (l->page)
        munmap(l->page, sizeof(*l->page));
    l->page = NULL;
}

void ublk_ledger_changed(struct ublk_ledger *l)
{
    if (l->page)
        __atomic_fetch_add(&l->page->changed, 1, __ATOMIC_SEQ_CST);
}

uint64_t ublk_ledger_covers(const struct ublk_ledger *l)
{
    return l->page ? __atomic_load_n(&l->page->changed, __ATOMIC_SEQ_CST) : 0;
}

void ublk_ledger_flushed(struct ublk_ledger *l, uint64_t covers)
{
    uint64_t now;

    if (!l->page)
        return;
    now = __atomic_load_n(&l->page->flushed, __ATOMIC_SEQ_CST);
    while (now < covers && !__atomic_compare_exchange_n(&l->page->flushed, &now, covers, false,
                                                        __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        ;
}

uint64_t ublk_ledger_take_loss(struct ublk_ledger *l)
{
    return l->page ? __atomic_exchange_n(&l->owed, 0, __ATOMIC_SEQ_CST) : 0;
}
