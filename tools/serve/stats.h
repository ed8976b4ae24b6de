/* SPDX-License-Identifier: MIT */
/* The statistics of a served image: as lines of the control socket, as tables and as JSON. */
#ifndef ZQ_TOOLS_SERVE_STATS_H
#define ZQ_TOOLS_SERVE_STATS_H

#include <stdbool.h>
#include <stdio.h>
#include <zqcow2/stats.h>

struct serve_stats {
    struct zqcow2_stats image;
    uint64_t zero_copies; /* requests whose data no process has copied; see zqcow2-ublk(1) */
};

/* A name and numbers in each line. */
void serve_stats_write(FILE *out, const struct serve_stats *s);
/* Takes such lines apart, and passes over those of a newer server; false: they are none. */
bool serve_stats_parse(char *text, struct serve_stats *s);

void serve_stats_print(const struct serve_stats *s);
void serve_stats_json(const struct serve_stats *s);
/* What was done each second since `before`, so many seconds ago. */
void serve_stats_rates(const struct serve_stats *before, const struct serve_stats *s,
                       double seconds);

#endif
