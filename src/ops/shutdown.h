/* SPDX-License-Identifier: MIT */
/*
 * The last operation of an image.
 */
#ifndef ZQ_OPS_SHUTDOWN_H
#define ZQ_OPS_SHUTDOWN_H

#include "loop/core.h"

/* Flushes, unmaps what lies ahead, empties the quarantine, clears the mark. */
zq_step zq_step_shutdown;

#endif
