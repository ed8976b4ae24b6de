/* SPDX-License-Identifier: MIT */
/* The table that persistent zone states are stored in, made when the first one needs it (R15). */
#ifndef ZQ_OPS_STATE_TABLE_H
#define ZQ_OPS_STATE_TABLE_H

#include "loop/core.h"

/* ZQ_WAIT, 0 when the image has the table, or why it cannot have one. */
int zq_state_table_have(struct zq_core *c, struct zq_op *op, struct zq_making *m);
/* Gives back what an operation still holds that has begun to make it. */
void zq_state_table_leave(struct zq_core *c, struct zq_op *op, struct zq_making *m);

#endif
