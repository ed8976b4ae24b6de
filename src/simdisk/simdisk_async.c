/* SPDX-License-Identifier: MIT */
/*
 * The asynchronous face of the simulated disk: requests fly until poll() completes a seeded number
 * of them in a seeded order. What a change writes is taken at submit, what a read gives at its
 * completion; reads see a change from its completion on.
 *
 * An io in flight is the caller's memory, linked through io->backend; the disk gives it back by
 * zqcow2_io_done(), which it calls without its lock, since the callback may submit again.
 */
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "simdisk/simdisk_int.h"

/* io->backend: [0] the next one flying, [1] the change or NULL, [2] the error to give. */

/* Needs no lock. */
static void signal_fd(struct zqcow2_simdisk *d)
{
    (void)zq_event_set(&d->event);
}

/* Before the list is looked at, never after: what is submitted meanwhile signals anew. */
static void calm_fd(struct zqcow2_simdisk *d)
{
    (void)zq_event_clear(&d->event);
}

/*
 * Under the lock. A fault is decided here, in the order of the calls, even if it shows at
 * completion: which call it hits must not depend on the order in which others complete. An error
 * that take() returns means that io was not accepted, and done() is not called for it.
 */
static int take(struct zqcow2_simdisk *d, struct zqcow2_io *io)
{
    struct sim_op *op = NULL;
    int fault, rc;

    d->count.calls[io->kind]++;
    d->count.bytes[io->kind] += io->length;
    rc = sim_misuse(d, io->kind, io->iov, (int)io->iovcnt, io->offset, io->length);
    if (rc < 0)
        return rc;
    fault = sim_fault_hit(d, io->kind);
    if (fault && (d->fault.flags & ZQCOW2_SIMDISK_AT_SUBMIT))
        return fault;
    if (io->kind != ZQCOW2_IO_READ)
        rc = sim_begin(d, io->kind, io->iov, io->offset,
                       io->kind == ZQCOW2_IO_TRUNCATE ? 0 : io->length, fault, &op);
    else if (sim_power_is_off(d))
        rc = -EIO;
    io->backend[0] = NULL;
    io->backend[1] = op;
    io->backend[2] = (void *)(intptr_t)fault;
    return rc;
}

/* -EOPNOTSUPP makes the library do without: it writes zeros, or leaves the space allocated. */
int sim_submit(void *self, struct zqcow2_io *io)
{
    struct zqcow2_simdisk *d = ((struct sim_handle *)self)->disk;
    int rc;

    if ((io->kind == ZQCOW2_IO_ZERO && (d->opt.flags & ZQCOW2_SIMDISK_NO_ZERO)) ||
        (io->kind == ZQCOW2_IO_DISCARD && (d->opt.flags & ZQCOW2_SIMDISK_NO_DISCARD)) ||
        io->kind > ZQCOW2_IO_TRUNCATE)
        return -EOPNOTSUPP;
    pthread_mutex_lock(&d->lock);
    rc = take(d, io);
    if (rc == 0) {
        if (!d->flying)
            signal_fd(d);
        *d->flying_tail = io;
        d->flying_tail = (struct zqcow2_io **)(void *)&io->backend[0];
        if (++d->count.in_flight > d->count.max_in_flight)
            d->count.max_in_flight = d->count.in_flight;
    }
    pthread_mutex_unlock(&d->lock);
    return rc;
}

/* Any of those in flight: the order of completion is nobody's promise. */
static struct zqcow2_io *pick(struct zqcow2_simdisk *d)
{
    uint64_t skip = zq_random(&d->rng) % d->count.in_flight--;
    struct zqcow2_io **link = &d->flying, *io;

    while (skip--)
        link = (struct zqcow2_io **)(void *)&(*link)->backend[0];
    io = *link;
    *link = io->backend[0];
    if (!*link)
        d->flying_tail = link;
    return io;
}

/*
 * A read looks at the content only here: it may see a write that was submitted after it, as on a
 * real disk.
 */
static int finish(struct zqcow2_simdisk *d, struct zqcow2_io *io)
{
    int fault = (int)(intptr_t)io->backend[2];
    uint64_t off = io->offset;

    if (io->backend[1])
        return sim_end(d, io->backend[1], fault);
    if (fault || sim_power_is_off(d))
        return fault ? fault : -EIO;
    for (uint32_t i = 0; i < io->iovcnt; i++) {
        sim_content_read(&d->view, io->iov[i].iov_base, io->iov[i].iov_len, off);
        off += io->iov[i].iov_len;
    }
    return 0;
}

/*
 * Completes at least one, if any fly, so that a caller that polls in a loop gets on; and not always
 * all, so that requests pass one another. The rest keeps the descriptor readable. EINTR from
 * poll(2) counts as nothing done, which a caller must expect anyway.
 */
int sim_poll(void *self, int timeout_ms)
{
    struct zqcow2_simdisk *d = ((struct sim_handle *)self)->disk;
    struct pollfd p = {.fd = d->event.fd, .events = POLLIN};
    uint64_t batch = 0;
    int done = 0;

    if (poll(&p, 1, timeout_ms) <= 0)
        return 0;
    pthread_mutex_lock(&d->lock);
    calm_fd(d);
    if (d->flying)
        batch = 1 + zq_random(&d->rng) % d->count.in_flight;
    for (; batch && d->flying; batch--, done++) {
        struct zqcow2_io *io = pick(d);
        int rc = finish(d, io);

        pthread_mutex_unlock(&d->lock);
        zqcow2_io_done(io, rc);
        pthread_mutex_lock(&d->lock);
    }
    if (d->flying)
        signal_fd(d);
    pthread_mutex_unlock(&d->lock);
    return done;
}

void sim_wake(void *self)
{
    signal_fd(((struct sim_handle *)self)->disk);
}

int sim_fd(void *self)
{
    return ((struct sim_handle *)self)->disk->event.fd;
}
