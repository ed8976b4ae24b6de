/* SPDX-License-Identifier: MIT */
/* The turn is free if no thread waits, or if the one that waited for the mutex has got it. */
#include "loop/turn.h"

void zq_turn_wait(pthread_mutex_t *mutex, pthread_mutex_t *turn)
{
    pthread_mutex_lock(turn);
    pthread_mutex_lock(mutex);
    pthread_mutex_unlock(turn);
}
