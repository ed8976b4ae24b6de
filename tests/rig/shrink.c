/* SPDX-License-Identifier: MIT */
/* Cuts a failing list down: drops halves, quarters, ... single entries, until the time is over. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "rig/shrink.h"

uint64_t shrink(uint64_t *list, uint64_t nr, unsigned seconds,
                bool (*fails)(void *arg, const uint64_t *list, uint64_t nr), void *arg)
{
    uint64_t *rest = malloc((nr + 1) * sizeof(*rest));
    time_t end = time(NULL) + (time_t)seconds;

    if (!rest)
        return nr;
    for (uint64_t n = nr / 2; n && time(NULL) < end; n /= 2) {
        for (uint64_t from = 0; from + n <= nr && time(NULL) < end;) {
            memcpy(rest, list, from * sizeof(*rest));
            memcpy(rest + from, list + from + n, (nr - from - n) * sizeof(*rest));
            if (fails(arg, rest, nr - n)) {
                nr -= n;
                memcpy(list, rest, nr * sizeof(*rest));
            } else {
                from += n;
            }
        }
    }
    free(rest);
    return nr;
}
