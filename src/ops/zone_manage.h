/* SPDX-License-Identifier: MIT */
/*
 * Open, close, finish, reset, and states that the embedding program sets.
 */
#ifndef ZQ_OPS_ZONE_MANAGE_H
#define ZQ_OPS_ZONE_MANAGE_H

#include "loop/core.h"

zq_step zq_step_manage, zq_step_set_state;

#endif
