/* SPDX-License-Identifier: MIT */
/* Extensions of zone descriptors: set, and read (R16). */
#ifndef ZQ_OPS_DESCRIBE_H
#define ZQ_OPS_DESCRIBE_H

#include "loop/core.h"

int zq_step_set_descriptor(struct zq_core *c, struct zq_op *op);
int zq_step_get_descriptors(struct zq_core *c, struct zq_op *op);
void zq_release_descriptors(struct zq_core *c, struct zq_op *op);

#endif
