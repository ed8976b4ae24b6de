/* SPDX-License-Identifier: MIT */
/* A backend on an export of an NBD server. It uses nothing of the library but public headers. */
#ifndef ZT_NBD_H
#define ZT_NBD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include <zqcow2/backend.h>

/* Where an export is. */
struct zt_nbd_place {
    struct sockaddr_storage address;
    socklen_t length;   /* of the address; 0: only its name leads there */
    unsigned reconnect; /* seconds, as below */
};

/* For programs that give up the right to connect. */
struct zt_nbd_dialer {
    struct zt_nbd_place *place; /* set by the first connection */
    /* A socket that is connected there, or -errno; -EOPNOTSUPP: the backend connects by itself. */
    int (*dial)(void *arg);
    void *arg;
};

struct zt_nbd_options {
    unsigned flags;                     /* zqcow2_file_flag: RDWR and EXCLUSIVE count */
    unsigned reconnect;                 /* for so many seconds a lost server is looked for */
    const struct zqcow2_hooks *hooks;   /* of which log is used; NULL: silent */
    const struct zt_nbd_dialer *dialer; /* valid while the backend is; NULL: none */
};

/* Is it the name of an export: nbd://, nbds://, nbd+unix:// or nbds+unix://? */
bool zt_nbd_name(const char *name);
/*
 * An export has a fixed size: the file in it grows up to that, and then gets -ENOSPC. No program is
 * locked out. -EEXIST: EXCLUSIVE was asked for, and an export always exists. On failure `why` has a
 * text, or is empty where the error says it all. Requests complete from a thread of the backend.
 */
int zt_nbd_open(const char *uri, const struct zt_nbd_options *opt, struct zqcow2_backend **be,
                char *why, size_t room);
/* A socket that is connected to that place, or -errno. Takes neither locks nor memory. */
int zt_nbd_dial(const struct zt_nbd_place *place);
/* Of a TCP connection. */
void zt_nbd_limit_silence(int fd, unsigned seconds);

#endif
