/* SPDX-License-Identifier: MIT */
/* Which device a new server takes over, and how that device is. */
#ifndef ZQ_TOOLS_UBLK_RECOVER_H
#define ZQ_TOOLS_UBLK_RECOVER_H

#include "ublk/server.h"

/*
 * Completes the options of `add --recover` with what the device has; without the path of an image
 * it is that of the last server, which `last` holds. False after reporting why that cannot be.
 */
bool ublk_recover_options(struct ublk_options *o, struct serve_state *last);

#endif
