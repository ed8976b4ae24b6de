/* SPDX-License-Identifier: MIT */
/*
 * Writes, writes of zeroes and discards where there is no write pointer. Requests that change what
 * the same guest clusters map to take turns (R14); overwrites in place do not wait for one another.
 */
#ifndef ZQ_OPS_OVERWRITE_H
#define ZQ_OPS_OVERWRITE_H

#include "loop/core.h"

zq_step zq_step_write;
zq_release zq_release_overwrite;

#endif
