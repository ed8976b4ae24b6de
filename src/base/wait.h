/* SPDX-License-Identifier: MIT */
/*
 * Waiting without a thread: a waiter is linked into the list of what it waits for, and moved from
 * there to a ready list. So a lower layer wakes operations without knowing what they are.
 */
#ifndef ZQ_BASE_WAIT_H
#define ZQ_BASE_WAIT_H

#include "base/list.h"

#define ZQ_WAIT 1 /* parked: enter again from the top when woken */

/*
 * What a lower layer knows of a parked operation. It links the waiter into a list of its own;
 * when the reason is gone it moves it to the image's ready list. rc < 0: what the operation waited
 * for has failed.
 */
struct zq_waiter {
    struct zq_list link;
    int rc;
};

/*
 * Moves every waiter of `from` to the ready list. All are woken, even if the reason serves only
 * one: each checks again from its top, and one that finds nothing parks behind the others.
 */
void zq_wake(struct zq_list *ready, struct zq_list *from);
/* The same; rc < 0: what they waited for has failed. */
void zq_wake_with(struct zq_list *ready, struct zq_list *from, int rc);

#endif
