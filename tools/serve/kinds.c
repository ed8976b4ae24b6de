/* SPDX-License-Identifier: MIT */
/* The kinds of servers that there are. */
#include "serve/kinds.h"

#include <stddef.h>

const struct serve_kind ublk_kind = {"ublk", "ublk device", "/dev/ublkb", "zqcow2 ublk list"};
const struct serve_kind vhost_kind = {"vhost-user", "vhost-user server", NULL, "zqcow2 serve list"};
