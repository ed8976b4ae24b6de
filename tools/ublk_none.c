/* SPDX-License-Identifier: MIT */
/* The verb `zqcow2 ublk` in a build without liburing: says so. */
#include "ublk.h"

#include <stdio.h>

int verb_ublk(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    fputs("zqcow2: built without liburing, so without ublk\n", stderr);
    return 1;
}
