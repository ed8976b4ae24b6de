/* SPDX-License-Identifier: MIT */
/* `list` and `del`: the servers of a kind, found by their state files. All report what fails. */
#ifndef ZQ_TOOLS_SERVE_CONTROL_H
#define ZQ_TOOLS_SERVE_CONTROL_H

#include "serve/state.h"

/* Prints a line for each server, with the name of its kind if `named`; the exit status. */
int serve_list(const struct serve_kind *kind, bool named);
/* By its number or its image; false: there is none. */
bool serve_lookup(const struct serve_kind *kind, const char *name, struct serve_state *out);
/* The same, which reports that there is none. */
bool serve_find(const struct serve_kind *kind, const char *name, struct serve_state *out);
/* Writing back and flushing may take minutes; a server that hangs must not stop its caller, too. */
#define SERVE_STOP_SECONDS 600u
/* For the options of a command that stops a server. */
#define SERVE_HELP_TIMEOUT \
    "  --timeout=SECONDS       how long to wait for the end of the server; 600\n"

/*
 * Is it suspended, by SIGSTOP or a debugger? Waits a few seconds for it to continue; then reports
 * that, and true.
 */
bool serve_is_suspended(const struct serve_state *s);
/*
 * Sends the signal and waits for the end, at most `seconds`. False after reporting that it cannot
 * be sent or has not ended.
 */
bool serve_end(const struct serve_state *s, int signal, uint32_t seconds);
/*
 * Stops a living one and waits for its end, at most `seconds`; the exit status, 1 also if the end
 * was not clean.
 */
int serve_stop(const struct serve_state *s, uint32_t seconds);

#endif
