/* SPDX-License-Identifier: MIT */
/* The shapes of devices that the random tests visit. */
#ifndef RIG_GEOMETRIES_H
#define RIG_GEOMETRIES_H

#include "rig/rig.h"

extern const struct geometry rig_geometries[];
extern const unsigned rig_nr_geometries;
uint64_t rig_max_append(const struct geometry *g);

#endif
