/* SPDX-License-Identifier: MIT */
/* Any text in one line or word: what would end it is written as a backslash and three octal digits,
 * as in /proc/mounts. */
#ifndef ZQ_TOOLS_SERVE_ESCAPE_H
#define ZQ_TOOLS_SERVE_ESCAPE_H

#include <stdio.h>

/* Bytes of `also` are escaped, too. */
void serve_put_escaped(FILE *f, const char *text, const char *also);
/* In place. A backslash without three digits stands for itself: 0.1 wrote paths as they are. */
void serve_unescape(char *text);

#endif
