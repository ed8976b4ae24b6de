/* SPDX-License-Identifier: MIT */
/* The kinds of servers that there are; what each does is in its own folder. */
#ifndef ZQ_TOOLS_SERVE_KINDS_H
#define ZQ_TOOLS_SERVE_KINDS_H

#include "serve/state.h"

extern const struct serve_kind ublk_kind, vhost_kind;

#endif
