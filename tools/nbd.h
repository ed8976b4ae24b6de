/* SPDX-License-Identifier: MIT */
/* A backend on an export of an NBD server. It uses nothing of the library but public headers. */
#ifndef ZT_NBD_H
#define ZT_NBD_H

#include <stdbool.h>
#include <stddef.h>

#include <zqcow2/backend.h>

struct zt_nbd_options {
    unsigned flags;                   /* zqcow2_file_flag: RDWR and EXCLUSIVE count */
    unsigned reconnect;               /* for so many seconds a lost server is looked for */
    const struct zqcow2_hooks *hooks; /* of which log is used; NULL: silent */
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

#endif
