/* SPDX-License-Identifier: MIT */
/* Events that follow from a result, or from a change of the whole image. Under the mutex. */
#ifndef ZQ_OPS_NOTE_H
#define ZQ_OPS_NOTE_H

#include "loop/core.h"

/* op has failed with rc, and op->res.offset says where if rc is a zone's error. */
void zq_note_failure(struct zq_core *c, const struct zq_op *op, int rc);
/* op has succeeded since the host was out of space. */
void zq_note_success(struct zq_core *c, const struct zq_op *op);
/* Any zone may have changed, and no request of the guest says so. */
void zq_note_all_zones(struct zq_core *c);

#endif
