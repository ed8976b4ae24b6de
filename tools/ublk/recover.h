/* SPDX-License-Identifier: MIT */
/* What dead servers leave: which device a new server takes over, how it is, and what can go. */
#ifndef ZQ_TOOLS_UBLK_RECOVER_H
#define ZQ_TOOLS_UBLK_RECOVER_H

#include "ublk/server.h"

/*
 * Completes the options of `add --recover` with what the device has; without the path of an image
 * it is that of the last server, which `last` holds. False after reporting why that cannot be.
 */
bool ublk_recover_options(struct ublk_options *o, struct serve_state *last);
/*
 * A server that was killed leaves its device behind; the image and the id are free to use again
 * unless that device waits for a server: -EBUSY, and the report says so.
 */
int ublk_reap_left_behind(struct ublk_ctl *ctl, uint32_t id, const char *image,
                          struct serve_report *report);

#endif
