/* SPDX-License-Identifier: MIT */
/*
 * The model test's io_uring world, moved to an NBD server: compiled with zqcow2_uring_open renamed,
 * so that the rig opens its images through the example's backend. ZQ_NBD names the export.
 */
#define main nbd_example_main
#include "../../examples/nbd_backend.c"
#undef main
#include "device/backend.h"

int nbd_example_main(int argc, char **argv);

/* A name that was not seen before means an empty file; the export has room for one. */
int zqcow2_uring_open(const char *path, unsigned flags, const struct zqcow2_hooks *hooks,
                      struct zqcow2_backend **be)
{
    static char last[64];
    const char *uri = getenv("ZQ_NBD");
    int rc;

    (void)hooks;
    if (!(flags & ZQCOW2_FILE_RDWR))
        return -EROFS; /* the rig asks whether this works at all */
    rc = uri ? remote_open(uri, be) : -ENOENT;
    if (rc == 0 && strcmp(last, path)) {
        snprintf(last, sizeof(last), "%s", path);
        rc = zq_be_truncate(*be, 0);
    }
    return rc;
}
