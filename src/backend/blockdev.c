/* SPDX-License-Identifier: MIT */
/*
 * Makes a block device behave as a file that can shrink and grow, for as long as it is open.
 *
 * Invariant: what lies between the length and the device's end is stale and unread. It becomes
 * zeros before the length moves over it, never after: a reader must not see old bytes.
 */
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "backend/blockdev.h"
#include "base/bytes.h"
#include "base/os.h"

#define BLOCK ((uint64_t)4096) /* covers every logical block size that O_DIRECT may ask for */

int zq_blockdev_adopt(struct zq_file *f)
{
    uint64_t bytes = 0;
    int rc = zq_os_device_bytes(f->fd, &bytes);

    if (rc < 0)
        return rc;
    f->device_bytes = bytes;
    atomic_store(&f->device_length, bytes);
    return 0;
}

/* Zeroes from `from` to the end of its block, which keeps what lies before. */
static int zero_block_tail(struct zq_file *f, uint64_t from)
{
    _Alignas(4096) uint8_t block[BLOCK];
    uint64_t start = zq_align_down(from, BLOCK);
    struct iovec iov = {block, (size_t)zq_min(BLOCK, f->device_bytes - start)};
    int rc = zq_file_read_rest(f, &iov, 1, start, 0);

    if (rc < 0)
        return rc;
    memset(block + (from - start), 0, (size_t)(BLOCK - (from - start)));
    return zq_file_write_rest(f, &iov, 1, start, 0);
}

/*
 * May clear up to a block beyond `to`: those bytes lie beyond the length, so nothing is lost. A
 * device that cannot discard to zeros is written.
 */
static int zero_gain(struct zq_file *f, uint64_t from, uint64_t to)
{
    int rc = from % BLOCK ? zero_block_tail(f, from) : 0;

    from = zq_align_up(from, BLOCK);
    to = zq_min(zq_align_up(to, BLOCK), f->device_bytes);
    if (rc < 0 || from >= to)
        return rc;
    rc = zq_file_zero(f, from, to - from);
    return rc == -EOPNOTSUPP ? zq_file_write_zeros(f, from, to) : rc;
}

/*
 * The mutex covers zeroing and the new length: a second thread that grows must not return, and
 * write, before the first has zeroed.
 */
int zq_blockdev_grow(struct zq_file *f, uint64_t end)
{
    uint64_t length;
    int rc = 0;

    if (end > f->device_bytes)
        return -ENOSPC;
    pthread_mutex_lock(&f->grow);
    length = atomic_load(&f->device_length);
    if (end > length) {
        rc = zero_gain(f, length, end);
        if (rc == 0)
            atomic_store(&f->device_length, end);
    }
    pthread_mutex_unlock(&f->grow);
    return rc;
}

void zq_blockdev_shrink(struct zq_file *f, uint64_t bytes)
{
    pthread_mutex_lock(&f->grow);
    if (bytes < atomic_load(&f->device_length))
        atomic_store(&f->device_length, bytes);
    pthread_mutex_unlock(&f->grow);
}
