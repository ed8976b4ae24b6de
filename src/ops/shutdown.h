/* SPDX-License-Identifier: MIT */
/*
 * The last operation of an image. Nothing else runs then, so it need not take turns; whatever it
 * cannot give back is a leak, for which it leaves the in-use mark set (R12).
 */
#ifndef ZQ_OPS_SHUTDOWN_H
#define ZQ_OPS_SHUTDOWN_H

#include "loop/core.h"

/* Flushes, unmaps what lies ahead, empties the quarantine, clears the mark. */
zq_step zq_step_shutdown;

#endif
