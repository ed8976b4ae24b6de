/* SPDX-License-Identifier: MIT */
/*
 * Reads.
 */
#ifndef ZQ_OPS_READ_H
#define ZQ_OPS_READ_H

#include "loop/core.h"

zq_step zq_step_read;

#endif
