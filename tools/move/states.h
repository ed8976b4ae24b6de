/* SPDX-License-Identifier: MIT */
/* What a copy keeps of zones besides pointers and bytes: what images store, in a table of its own.
 */
#ifndef ZT_MOVE_STATES_H
#define ZT_MOVE_STATES_H

#include "disk.h"
#include "output.h"

struct zt_states {
    struct zt_disk *from;
    struct zt_output *to;
    bool keep;          /* the target has the same zones, and is to have these states, too */
    uint8_t *forced;    /* states that zones of the source were in, or 0 */
    uint8_t *extension; /* as long as one of the target's; NULL: nothing has any */
};

/*
 * Read-only and offline zones show neither pointer nor all bytes: from here on those of an image
 * are normal in memory. So are those of a target that is resumed. 0, an error, or 1 after
 * reporting that no image can have such a zone; free in all cases.
 */
int zt_states_release(struct zt_states *s);
/* Gives the empty zone of the target the descriptor extension that the source's has. */
int zt_states_describe(struct zt_states *s, uint64_t start);
/* Makes the zones of the target, which are written, read-only and offline again; no device can. */
int zt_states_restore(struct zt_states *s);
void zt_states_free(struct zt_states *s);

#endif
