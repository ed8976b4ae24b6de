/* SPDX-License-Identifier: MIT */
/* The verb ublk in the list of verbs; commands.c does the work. */
#include "tool.h"
#include "ublk/commands.h"

const struct zt_verb zt_verb_ublk = {
    "ublk",
    "add [--id N] [--queues N] [--depth N] [--backend NAME] [--read-only]\n"
    "                       [--foreground] FILE\n"
    "       zqcow2 ublk list\n"
    "       zqcow2 ublk del [--force] ID|FILE",
    "Makes an image a block device of this Linux",
    "  --id=N                  the device is /dev/ublkbN; the next free one\n"
    "  --queues=N, --depth=N   queues, and requests in flight in each\n" ZT_HELP_BACKEND
    "  --read-only             the device cannot be written\n"
    "  --foreground            serve until a signal ends it\n"
    "  --force                 del: also if it is in use\n",
    verb_ublk};
