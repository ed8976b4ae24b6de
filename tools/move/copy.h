/* SPDX-License-Identifier: MIT */
/* The bytes of a disk, and its zones, to another: several requests at a time, in order. */
#ifndef ZT_MOVE_COPY_H
#define ZT_MOVE_COPY_H

#include "disk.h"
#include "output.h"

struct zt_copy {
    struct zt_disk *from;
    struct zt_output *to;
    uint64_t granule;  /* runs of zeros of so many bytes are left out; 0: none is */
    unsigned workers;  /* requests in flight */
    bool keep;         /* both have the same zones: so have they afterwards */
    bool compress;     /* store compressed clusters: of zones, in those that are full */
    unsigned progress; /* zt_progress_form */
};

/* False after reporting, and if a signal has stopped it. */
bool zt_copy(const struct zt_copy *copy);

#endif
