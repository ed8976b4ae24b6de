/* SPDX-License-Identifier: MIT */
/* Stories about an image, run under every fault there is. Each file has its table. */
#ifndef SCENARIO_SCENARIO_H
#define SCENARIO_SCENARIO_H

#include "rig/story.h"

/* Zones 0 and 1 conventional, 2..7 sequential, 8 short. */
extern const struct geometry sc_base;
extern const struct geometry sc_limits;
extern const struct geometry sc_tiny;  /* clusters of 512: much metadata */
extern const struct geometry sc_plain; /* no zones */

extern const struct scenario_set scenarios_zones, scenarios_data, scenarios_crowd, scenarios_file;

#define SCENARIOS(name, table) \
    const struct scenario_set name = {table, sizeof(table) / sizeof(*(table))}

#endif
