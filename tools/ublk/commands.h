/* SPDX-License-Identifier: MIT */
/* The verb `zqcow2 ublk`: an image as a block device of this Linux. See zqcow2-ublk(1). */
#ifndef ZQ_TOOLS_UBLK_COMMANDS_H
#define ZQ_TOOLS_UBLK_COMMANDS_H

/* argv[0] is the verb itself. Returns the exit status; messages have been printed. */
int verb_ublk(int argc, char **argv);

#endif
