/* SPDX-License-Identifier: MIT */
/*
 * The model test's io_uring world, moved to an NBD server: compiled with zqcow2_uring_open renamed,
 * so that the rig opens its images through the command's backend. ZQ_NBD names the export.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device/backend.h"
#include "nbd.h"

#define RECONNECT 60 /* seconds */

static void say(void *ctx, int level, const char *text)
{
    (void)ctx;
    (void)level;
    fprintf(stderr, "%s\n", text);
}

/* The server may just be dead. */
static int open_patiently(const char *uri, const struct zt_nbd_options *opt,
                          struct zqcow2_backend **be)
{
    char why[256];
    int rc = zt_nbd_open(uri, opt, be, why, sizeof(why));

    for (int i = 0; rc < 0 && i < RECONNECT * 10; i++) {
        usleep(100000);
        rc = zt_nbd_open(uri, opt, be, why, sizeof(why));
    }
    if (rc < 0)
        say(NULL, 0, why);
    return rc;
}

/* A name that was not seen before means an empty file; the export has room for one. */
int zqcow2_uring_open(const char *path, unsigned flags, const struct zqcow2_hooks *hooks,
                      struct zqcow2_backend **be)
{
    static const struct zqcow2_hooks loud = {.size = sizeof(loud), .log = say};
    static char last[64];
    struct zt_nbd_options opt = {.flags = flags, .reconnect = RECONNECT, .hooks = &loud};
    const char *uri = getenv("ZQ_NBD");
    int rc;

    (void)hooks;
    if (!(flags & ZQCOW2_FILE_RDWR))
        return -EROFS; /* the rig asks whether this works at all */
    rc = uri ? open_patiently(uri, &opt, be) : -ENOENT;
    if (rc == 0 && strcmp(last, path)) {
        snprintf(last, sizeof(last), "%s", path);
        rc = zq_be_truncate(*be, 0);
    }
    return rc;
}
