/* SPDX-License-Identifier: MIT */
/*
 * The one report of a server to the command that started it, over a pipe: '+' and the lines to
 * print once clients can open the device, or '-' and one line that says why they cannot. The pipe
 * is closed with it; a server that dies before leaves it empty.
 */
#ifndef ZQ_TOOLS_SERVE_REPORT_H
#define ZQ_TOOLS_SERVE_REPORT_H

#include "serve/options.h"

struct serve_report {
    int fd; /* the server's end, owned; -1: the report has been made */
};

void serve_report_failure(struct serve_report *r, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* `endpoint` is what clients open; `append` the largest that the device takes. */
void serve_report_ready(struct serve_report *r, const char *endpoint,
                        const struct zqcow2_info *info, bool read_only, uint32_t append);

/* Runs one server until its end; the exit status. Makes the report, or leaves it unmade. */
typedef int serve_main(const void *arg, struct serve_report *r);
/*
 * Runs it in a process in the background or in this one, and prints its report. The exit status:
 * in the background that of the report, else that of the server.
 */
int serve_launch(bool foreground, serve_main *server, const void *arg);

#endif
