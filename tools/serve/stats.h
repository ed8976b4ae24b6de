/* SPDX-License-Identifier: MIT */
/* The statistics of a served image: as lines of the control socket, as tables and as JSON. */
#ifndef ZQ_TOOLS_SERVE_STATS_H
#define ZQ_TOOLS_SERVE_STATS_H

#include <stdbool.h>
#include <stdio.h>
#include <zqcow2/stats.h>

/* A name and numbers in each line. */
void serve_stats_write(FILE *out, const struct zqcow2_stats *s);
/* Takes such lines apart, and passes over those of a newer server; false: they are none. */
bool serve_stats_parse(char *text, struct zqcow2_stats *s);

void serve_stats_print(const struct zqcow2_stats *s);
void serve_stats_json(const struct zqcow2_stats *s);
/* What was done each second since `before`, so many seconds ago. */
void serve_stats_rates(const struct zqcow2_stats *before, const struct zqcow2_stats *s,
                       double seconds);

#endif
