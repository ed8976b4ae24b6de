/* SPDX-License-Identifier: MIT */
/* States that the embedding program sets, in memory or persistent (R15). */
#ifndef ZQ_OPS_SET_STATE_H
#define ZQ_OPS_SET_STATE_H

#include "loop/core.h"

int zq_step_set_state(struct zq_core *c, struct zq_op *op);
void zq_release_set_state(struct zq_core *c, struct zq_op *op);

#endif
