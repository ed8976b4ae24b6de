/* SPDX-License-Identifier: MIT */
/* Seeded random numbers, for what a test must be able to replay. */
#ifndef ZQ_BASE_RANDOM_H
#define ZQ_BASE_RANDOM_H

#include <stdint.h>

/* splitmix64: any seed will do, 0 too. */
static inline uint64_t zq_random(uint64_t *rng)
{
    uint64_t z = *rng += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

#endif
