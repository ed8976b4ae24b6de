/* SPDX-License-Identifier: MIT */
/* The verb `zqcow2 ublk` in a build without liburing: says so. */
#include "ublk/commands.h"

#include "tool.h"

int verb_ublk(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    zt_error("built without liburing, so without ublk");
    return 1;
}
