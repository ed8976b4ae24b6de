/* SPDX-License-Identifier: MIT */
/* What a backend may ask for: no call may break it, and nobody above the backend notices. */
#ifndef RIG_LIMITS_H
#define RIG_LIMITS_H

#include <zqcow2/backend.h>

struct limits {
    const char *name;
    struct zqcow2_limits l;
};

extern const struct limits rig_limits[];
extern const unsigned rig_nr_limits;

#endif
