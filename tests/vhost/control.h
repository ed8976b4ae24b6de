/* SPDX-License-Identifier: MIT */
/* The control socket of a server that the tests have started. */
#ifndef VHOST_CONTROL_H
#define VHOST_CONTROL_H

#include "frontend.h"

#define TEXT_MAX 65536

extern char text[TEXT_MAX]; /* what the last command printed */

/* `zqcow2 serve ctl` with these words; its exit status. */
int ctl(const struct front *f, const char *words);
/* It prints nothing, or fails with this message. */
void expect(const struct front *f, const char *words, const char *message);
/* A connection of a client that does as it likes. */
int dial(const struct front *f);
/* Sends bytes, and returns what comes until the server ends the connection. */
const char *raw(const struct front *f, const void *bytes, size_t n);
/* The number behind the first `name` of the text. */
uint64_t number(const char *name);

#endif
