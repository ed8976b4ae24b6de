/* SPDX-License-Identifier: MIT */
/* Stands for the backend where the command is built without libnbd. */
#include <errno.h>
#include <stdio.h>

#include "nbd.h"

int zt_nbd_open(const char *uri, const struct zt_nbd_options *opt, struct zqcow2_backend **be,
                char *why, size_t room)
{
    (void)uri;
    (void)opt;
    (void)be;
    snprintf(why, room, "this zqcow2 was built without libnbd, which NBD needs");
    return -ENOSYS;
}
