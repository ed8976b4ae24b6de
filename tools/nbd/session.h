/* SPDX-License-Identifier: MIT */
/*
 * One export in use. A thread owns the connection and everything else that is marked so; requests
 * reach it through a list, and complete from it.
 */
#ifndef ZT_NBD_SESSION_H
#define ZT_NBD_SESSION_H

#include <libnbd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "nbd.h"
#include "nbd/unflushed.h"

#define NBD_MOST (32u << 20) /* bytes in a request: what servers take that give no limit */
#define NBD_HEAD 4096u       /* by its first bytes an export is known again */

/* What a request carries in its backend[]. */
enum {
    NBD_LINK,  /* the next one in a list */
    NBD_OWNER, /* struct nbd */
    NBD_NOTE,  /* FLUSH: the latest write before it; READ: the bytes before the file's end */
    NBD_WAITER /* of a blocking call, a struct waiter */
};

struct nbd_list {
    struct zqcow2_io *head, *tail;
};

/* What a server says of an export. */
struct nbd_traits {
    uint64_t bytes;
    uint32_t align, most; /* of requests */
    bool writable, flush, fua, trim, zero;
};

struct nbd {
    char *uri;
    struct nbd_traits traits;
    unsigned reconnect; /* seconds */
    struct zqcow2_hooks hooks;
    const struct zt_nbd_dialer *dialer;
    char *export; /* its name; NULL: there was no connection yet */
    bool encrypted;
    bool by_name; /* the thread's: the connection was not dialled */
    int wake;     /* eventfd */
    pthread_t thread;
    pthread_mutex_t lock; /* of these two: */
    struct nbd_list incoming;
    bool stop;
    _Atomic uint64_t length; /* of the file in the export; only the thread changes it */

    /* The thread's, once it runs. */
    struct nbd_handle *h; /* NULL: there is no connection */
    int socket;           /* a duplicate of the connection's, which shows who ended it */
    int error;            /* an errno of the connection, or 0 */
    struct nbd_list waiting;
    struct nbd_list changing; /* in flight: what changes the export */
    unsigned in_flight;
    unsigned unknown; /* writes of a lost connection that may or may not have been done */
    bool draining;    /* the server is about to end: nothing new is sent */
    bool trimming;    /* a flush of our own is in flight, up to: */
    uintptr_t trim_nr;
    int broken; /* -errno for every request from now on */
    struct nbd_unflushed unflushed;
    uint8_t head[NBD_HEAD]; /* of the export, as acknowledged, ... */
    bool headless;          /* ... unless that was discarded */
};

void nbd_list_push(struct nbd_list *l, struct zqcow2_io *io);
struct zqcow2_io *nbd_list_pop(struct nbd_list *l);
double nbd_now(void);
void nbd_say(const struct nbd *n, int level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* ---- connect.c ---- */

/*
 * A connection to an export, and what the server says of it; until the time `until`, or until
 * `wake` is readable and n is to stop. 0 or -errno after a text for `why`.
 */
int nbd_connect(struct nbd *n, struct nbd_traits *t, double until, char *why, size_t room);
/* Waits for the connection or a wake-up, `ms` at most, and lets libnbd go on. */
void nbd_step(struct nbd *n, int ms);
bool nbd_is_over(const struct nbd *n); /* the connection has ended */
/* Starts nothing new: ends the connection at once. */
void nbd_drop(struct nbd *n);
/* Did the server end it? What it has received there it then does no more. */
bool nbd_ended_by_server(const struct nbd *n);
bool nbd_stopped(struct nbd *n);

/* ---- own.c: requests of the thread's own, which it waits for ---- */

/* Each returns 0, -errno of the server, or -ENOTCONN: the connection has ended. */
int nbd_own_read(struct nbd *n, void *buf, size_t len, uint64_t off);
int nbd_own_write(struct nbd *n, const void *buf, size_t len, uint64_t off);
int nbd_own_zero(struct nbd *n, uint64_t len, uint64_t off);
/* Makes the file longer; what it gains becomes zeros first. */
int nbd_grow(struct nbd *n, uint64_t end);
/* What has been written, by anyone, is entered here. iov NULL: zeros. */
void nbd_wrote(struct nbd *n, uint64_t off, uint64_t len, const struct iovec *iov);

/* ---- recover.c ---- */

/* After the end of a connection: another one, or n->broken. */
void nbd_recover(struct nbd *n);
void nbd_give_up(struct nbd *n, const char *why);

/* ---- session.c ---- */

int nbd_start(struct nbd *n);
void nbd_stop(struct nbd *n);
void nbd_push(struct nbd *n, struct zqcow2_io *io);
void nbd_wake(struct nbd *n);
/* The same request, waited for. */
int nbd_call(struct nbd *n, struct zqcow2_io *io);

#endif
