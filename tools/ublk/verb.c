/* SPDX-License-Identifier: MIT */
/* The verb ublk in the list of verbs; commands.c does the work. */
#include "serve/control.h"
#include "serve/options.h"
#include "tool.h"
#include "ublk/commands.h"

const struct zt_verb zt_verb_ublk = {
    "ublk",
    "add [--id N] [--queues N] [--depth N] [--block-size N]\n"
    "                       [--copy auto|zero|user] [--backend NAME] [--backing-root DIR]\n"
    "                       [--data-file FILE] [--backing-format FMT] [--ctl PATH]\n"
    "                       [--faults SPEC] [--user NAME] [--unconfined] [--read-only]\n"
    "                       [--recoverable wait|fail] [--foreground] FILE\n"
    "       zqcow2 ublk add --recover ID [OPTION...] [FILE]\n"
    "       zqcow2 ublk list\n"
    "       zqcow2 ublk del [--force] [--timeout SECONDS] ID|FILE",
    "Attaches an image as a Linux block device",
    "  --id=N                  use /dev/ublkbN; the next free one\n"
    "  --queues=N, --depth=N   number of queues, and of requests in each\n"
    "  --block-size=N          logical blocks of 512 bytes, or of 4096\n"
    "  --copy=HOW              zero: the kernel moves the data; user: the server copies it;\n"
    "                          auto (the default): zero where it can be\n" ZT_HELP_FILES
        ZT_HELP_FORMAT ZT_HELP_BACKEND SERVE_HELP_CTL SERVE_HELP_USER
    "  --read-only             make the device read-only\n"
    "  --recoverable=HOW       keep the device if its server dies; requests wait or fail\n"
    "  --recover=ID            serve a device that was kept, of the same image\n"
    "  --foreground            serve in the foreground until a signal\n"
    "  --force                 del: even if the device is in use\n" SERVE_HELP_TIMEOUT,
    verb_ublk};
