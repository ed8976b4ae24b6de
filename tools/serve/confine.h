/* SPDX-License-Identifier: MIT */
/*
 * A server that is set up needs few rights, and what a hostile image or guest might make of it must
 * not have more: no path, no new program, no connection of its own.
 */
#ifndef ZQ_TOOLS_SERVE_CONFINE_H
#define ZQ_TOOLS_SERVE_CONFINE_H

#include "serve/options.h"
#include "serve/report.h"

/*
 * Once everything is open, before the server's own threads are created: they inherit it. Takes the
 * user of the options, drops all capabilities, and bars every path (Landlock, where the kernel has
 * it). 0, or -errno after the report of a failure.
 */
int serve_confine_rights(const struct serve_options *opt, struct serve_report *report);
/*
 * Once all threads run; it covers every thread. Only the system calls that serving needs are left;
 * any other fails with EPERM, and ends a build with assertions. 0, or -errno after the report.
 */
int serve_confine_calls(const struct serve_options *opt, struct serve_report *report);

#endif
