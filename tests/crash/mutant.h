/* SPDX-License-Identifier: MIT */
/* Included before everything else by the build of mutants.sh: says which rule is broken. */
#ifndef CRASH_MUTANT_H
#define CRASH_MUTANT_H

#include <stdlib.h>

#define ZQ_MUTANT zq_mutant()

static inline int zq_mutant(void)
{
    static int number = -1;

    if (number < 0) {
        const char *text = getenv("ZQ_MUTANT");
        number = text ? atoi(text) : 0;
    }
    return number;
}

#endif
