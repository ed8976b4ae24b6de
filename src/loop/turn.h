/* SPDX-License-Identifier: MIT */
/*
 * A mutex that threads get in turn. A mutex alone knows no order: who gives it back and takes it
 * again at once is faster than a thread that has to be woken for it.
 */
#ifndef ZQ_LOOP_TURN_H
#define ZQ_LOOP_TURN_H

#include <pthread.h>

/* Waits for the mutex; the thread that waits for it holds `turn`. */
void zq_turn_wait(pthread_mutex_t *mutex, pthread_mutex_t *turn);

#endif
