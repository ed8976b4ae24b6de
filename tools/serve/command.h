/* SPDX-License-Identifier: MIT */
/* What a server does when its control socket says so. */
#ifndef ZQ_TOOLS_SERVE_COMMAND_H
#define ZQ_TOOLS_SERVE_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "serve/image.h"

enum { SERVE_COMMAND_WHY = 512 }; /* bytes of a reason, its end included */

/*
 * Carries out a line of `length` bytes, which it takes apart, on an image that is being served, and
 * writes the lines of its answer. False: it failed, `why` says why.
 */
bool serve_command(struct serve_image *image, char *line, size_t length, FILE *out, char *why);

#endif
