/* SPDX-License-Identifier: MIT */
/* Intrusive lists: a circular doubly linked list, and the waiter that an operation embeds. */
#ifndef ZQ_BASE_LIST_H
#define ZQ_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct zq_list {
    struct zq_list *next, *prev;
};

#define zq_container(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

static inline void zq_list_init(struct zq_list *l)
{
    l->next = l->prev = l;
}

static inline bool zq_list_empty(const struct zq_list *l)
{
    return l->next == l;
}

/* At the tail of list l. */
static inline void zq_list_push(struct zq_list *l, struct zq_list *n)
{
    n->prev = l->prev;
    n->next = l;
    l->prev->next = n;
    l->prev = n;
}

/* n must not be in a list; nothing checks that. */
static inline void zq_list_push_front(struct zq_list *l, struct zq_list *n)
{
    zq_list_push(l->next, n);
}

/* A removed element is an empty list of its own, so that removing it again is harmless. */
static inline void zq_list_del(struct zq_list *n)
{
    n->prev->next = n->next;
    n->next->prev = n->prev;
    n->next = n->prev = n;
}

static inline struct zq_list *zq_list_pop(struct zq_list *l)
{
    struct zq_list *n = l->next;

    if (n == l)
        return NULL;
    zq_list_del(n);
    return n;
}

/* All of `from` to the tail of `to`; from becomes empty. */
static inline void zq_list_splice(struct zq_list *to, struct zq_list *from)
{
    if (zq_list_empty(from))
        return;
    from->next->prev = to->prev;
    from->prev->next = to;
    to->prev->next = from->next;
    to->prev = from->prev;
    zq_list_init(from);
}

#endif
