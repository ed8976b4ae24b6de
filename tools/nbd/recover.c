/* SPDX-License-Identifier: MIT */
/*
 * A server that is lost and found.
 *
 * What it acknowledged and did not flush may be gone, so it is written again, in its order, before
 * anything else. A write that was in flight may or may not have been done, and may even be done
 * later, over something newer. It is repeated only if the server itself ended the connection:
 * then it does nothing more of what came over it. What was flushed must still be there.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

#include "nbd/session.h"

#define PAUSE 100 /* ms between two attempts */

void nbd_give_up(struct nbd *n, const char *why)
{
    nbd_say(n, ZQCOW2_LOG_ERROR, "%s: %s; all further requests fail", n->uri, why);
    n->broken = -EIO;
    nbd_unflushed_free(&n->unflushed);
    if (n->h)
        nbd_drop(n);
}

static bool still_fits(const struct nbd_traits *was, const struct nbd_traits *is)
{
    return is->bytes == was->bytes && is->align <= was->align && is->most >= was->most &&
           is->writable >= was->writable && is->flush >= was->flush && is->fua >= was->fua &&
           is->trim >= was->trim && is->zero >= was->zero;
}

static void overlay_request(const struct zqcow2_io *io, uint8_t *buf)
{
    bool write = io->kind == ZQCOW2_IO_WRITE;
    struct nbd_write w = {.offset = io->offset,
                          .length = io->length,
                          .data = write ? (uint8_t *)io->iov->iov_base : NULL};

    if (write || io->kind == ZQCOW2_IO_ZERO || io->kind == ZQCOW2_IO_DISCARD)
        nbd_write_overlay(&w, buf, NBD_HEAD);
}

/*
 * Compares the first bytes, except where the server may rightly have one version or another. Those
 * behind the end of the file are nobody's: a request that makes it longer writes zeros there, and
 * this may have been interrupted.
 */
static int recognize(struct nbd *n)
{
    static const char other[] = "the server has another export now, or has lost what was flushed";
    size_t len = n->length < NBD_HEAD ? (size_t)n->length : NBD_HEAD;
    uint8_t was[NBD_HEAD], is[NBD_HEAD] = {0};
    int rc = len ? nbd_own_read(n, is, len, 0) : 0;

    if (rc < 0)
        return rc;
    memcpy(was, n->head, sizeof(was));
    for (const struct nbd_write *w = n->unflushed.first; w; w = w->next) {
        nbd_write_overlay(w, was, sizeof(was));
        nbd_write_overlay(w, is, sizeof(is));
    }
    for (const struct zqcow2_io *io = n->waiting.head; io; io = io->backend[NBD_LINK]) {
        overlay_request(io, was);
        overlay_request(io, is);
    }
    if (n->headless || !memcmp(was, is, len))
        return 0;
    nbd_give_up(n, other);
    return -EIO;
}

static int write_again(struct nbd *n)
{
    int rc = 0;

    for (const struct nbd_write *w = n->unflushed.first; rc == 0 && w; w = w->next)
        rc = w->data ? nbd_own_write(n, w->data, (size_t)w->length, w->offset) :
                       nbd_own_zero(n, w->length, w->offset);
    return rc;
}

/* 0; -ENOTCONN: lost again. Any other error has been given up for. */
static int resume(struct nbd *n, const struct nbd_traits *t)
{
    int rc;

    if (!still_fits(&n->traits, t)) {
        nbd_give_up(n, "the server has another export now");
        return -EIO;
    }
    rc = recognize(n);
    if (rc < 0) {
        if (rc != -ENOTCONN && !n->broken)
            nbd_give_up(n, "the server cannot read the export any more");
        return rc;
    }
    rc = write_again(n);
    if (rc < 0 && rc != -ENOTCONN)
        nbd_give_up(n, "the server takes no more what it had taken before");
    return rc;
}

/* Requests that come meanwhile wake it, and wait. */
static void pause_until(struct nbd *n, double until)
{
    double end = nbd_now() + PAUSE / 1e3;

    for (double left; !nbd_stopped(n);) {
        struct pollfd p = {n->wake, POLLIN, 0};
        eventfd_t wakes;

        left = (end < until ? end : until) - nbd_now();
        if (left <= 0)
            return;
        if (poll(&p, 1, (int)(left * 1000) + 1) > 0)
            (void)eventfd_read(n->wake, &wakes);
    }
}

/* False: no other connection can be begun. */
static bool let_go(struct nbd *n)
{
    bool ended = nbd_ended_by_server(n), draining = n->draining;

    nbd_drop(n);
    if (n->unknown && !ended && !draining)
        nbd_give_up(n, "the connection is lost, and the server may still act on writes");
    else if (n->unflushed.gap)
        nbd_give_up(n,
                    "the server is lost, and there was no memory to keep what it had not flushed");
    n->unknown = 0;
    return !n->broken;
}

void nbd_recover(struct nbd *n)
{
    double until = nbd_now() + n->reconnect;
    char why[256] = "the server has gone";
    struct nbd_traits t;

    if (!let_go(n))
        return;
    if (n->reconnect)
        nbd_say(n, ZQCOW2_LOG_WARN, "%s: the server is lost; trying to reconnect for %u s", n->uri,
                n->reconnect);
    while (!nbd_stopped(n) && nbd_now() < until) {
        int rc = nbd_connect(n, &t, until, why, sizeof(why));

        if (rc == 0) {
            rc = resume(n, &t);
            if (rc == 0) {
                nbd_say(n, ZQCOW2_LOG_WARN, "%s: the server is back", n->uri);
                return;
            }
            if (n->broken || (n->h && !let_go(n)))
                return;
            snprintf(why, sizeof(why), "the server was lost again");
        }
        pause_until(n, until);
    }
    if (!nbd_stopped(n))
        nbd_give_up(n, why);
}
