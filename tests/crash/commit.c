/* SPDX-License-Identifier: MIT */
/* Commits an image of the crash test. */
#include <zqcow2/chain.h>

#include "crash.h"

int commit_disk(struct disk *disk, struct zqcow2_error *err)
{
    struct zqcow2_commit_options o = ZQCOW2_COMMIT_OPTIONS_INIT;
    struct zqcow2_backend *be;
    int rc = disk_backend(disk, THE_IMAGE, &be);

    if (rc < 0)
        return rc;
    o.resolve = source_resolve;
    o.resolve_arg = disk;
    rc = zqcow2_commit(be, &o, err);
    zqcow2_backend_close(be);
    return rc;
}
