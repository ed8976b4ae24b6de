/* SPDX-License-Identifier: MIT */
/*
 * Block status: what kind of bytes come next, as the mapping has it, without reading them. Two
 * neighbours of one kind may be reported apart; one answer never mixes two kinds.
 */
#ifndef ZQ_OPS_BLOCK_STATUS_H
#define ZQ_OPS_BLOCK_STATUS_H

#include "loop/core.h"

zq_step zq_step_block_status;

#endif
