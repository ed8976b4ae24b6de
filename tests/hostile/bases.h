/* SPDX-License-Identifier: MIT */
/* Sound images to begin with: what is damaged starts from one of them. */
#ifndef HOSTILE_BASES_H
#define HOSTILE_BASES_H

#include "unit/pic.h"

/* Takes p, and frees it. */
typedef void base_fn(struct pic *p, const char *name);

/* Small and large entries, zones and snapshots or none. */
void bases_make(base_fn *keep);
/* The files that match, gz or not, in the order of their names. */
void bases_load(const char *pattern, base_fn *keep);

#endif
