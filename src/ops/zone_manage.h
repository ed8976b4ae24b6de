/* SPDX-License-Identifier: MIT */
/*
 * Open, close, finish, reset. A request over several zones handles them in order, each in its turn
 * and drained, and stops at the first refusal: the zones before it stay changed.
 */
#ifndef ZQ_OPS_ZONE_MANAGE_H
#define ZQ_OPS_ZONE_MANAGE_H

#include "loop/core.h"

zq_step zq_step_manage;

#endif
