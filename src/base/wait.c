/* SPDX-License-Identifier: MIT */
/* Wakes waiters, in the order in which they came: the ready list is served from its front. */
#include "base/wait.h"

void zq_wake(struct zq_list *ready, struct zq_list *from)
{
    zq_list_splice(ready, from);
}

void zq_wake_with(struct zq_list *ready, struct zq_list *from, int rc)
{
    for (struct zq_list *n = from->next; rc < 0 && n != from; n = n->next)
        zq_container(n, struct zq_waiter, link)->rc = rc;
    zq_list_splice(ready, from);
}
