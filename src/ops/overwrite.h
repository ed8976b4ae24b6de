/* SPDX-License-Identifier: MIT */
/*
 * Writes, writes of zeroes and discards where there is no write pointer.
 */
#ifndef ZQ_OPS_OVERWRITE_H
#define ZQ_OPS_OVERWRITE_H

#include "loop/core.h"

zq_step zq_step_write;
zq_release zq_release_overwrite;

#endif
