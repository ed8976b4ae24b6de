/* SPDX-License-Identifier: MIT */
/* Images with a fault each, for the tests of repair. */
#ifndef UNIT_FAULTS_H
#define UNIT_FAULTS_H

#include "unit/pic.h"

#define MiB(n) ((uint64_t)(n) << 20)
#define KiB(n) ((uint64_t)(n) << 10)

#define LEAKS  ZQCOW2_CHECK_REPAIR_LEAKS
#define REPAIR ZQCOW2_CHECK_REPAIR
#define ALL    ZQCOW2_CHECK_REPAIR_ALL

struct fault {
    const char *name;
    void (*make)(struct pic *p); /* NULL: none */
    unsigned flags;              /* the least that repairs it */
    bool raise;                  /* refcounts were too low: until it is repaired, so may they be */
};

extern const struct fault faults[];
extern const size_t nr_faults;

/* 16 zones of 64 KiB, 2 conventional; data in zones 0, 3 and 5: */
void fault_image(struct pic *p, uint32_t cluster, uint32_t bits);
struct fault_data {
    uint64_t guest;
    int fill;
};
extern const struct fault_data fault_data[3];

/* A bitmap for each name, up to NULL, with a table of its own; returns the directory's offset. */
uint64_t fault_bitmaps(struct pic *p, const char *const *names);

void fault_leak(struct pic *p);
void fault_shared(struct pic *p);
void fault_dirty(struct pic *p);
void fault_data_nowhere(struct pic *p);
void fault_wp_lost(struct pic *p);
void fault_l2_on_l1(struct pic *p);
void fault_table_behind(struct pic *p);

#endif
