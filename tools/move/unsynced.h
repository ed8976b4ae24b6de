/* SPDX-License-Identifier: MIT */
/* For --no-sync: what is written becomes durable when the system likes. */
#ifndef ZT_MOVE_UNSYNCED_H
#define ZT_MOVE_UNSYNCED_H

#include "tool.h"

/* On success *be owns inner; on failure the caller keeps it. */
int zt_unsynced(struct zqcow2_backend *inner, struct zqcow2_backend **be);

#endif
