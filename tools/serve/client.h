/* SPDX-License-Identifier: MIT */
/* `zqcow2 serve ctl`: a command to a server that runs. */
#ifndef ZQ_TOOLS_SERVE_CLIENT_H
#define ZQ_TOOLS_SERVE_CLIENT_H

/* argv[0]: "ctl". The exit status. */
int serve_ctl(int argc, char **argv);

#endif
