/* SPDX-License-Identifier: MIT */
/* Seeded numbers: a Weyl sequence, mixed. The same seed gives the same numbers everywhere. */
#ifndef RIG_RNG_H
#define RIG_RNG_H

#include <stdint.h>

static inline uint64_t rng_mix(uint64_t x)
{
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93ull;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93ull;
    return x ^ x >> 32;
}

static inline uint64_t rng_next(uint64_t *state)
{
    *state += 0x9e3779b97f4a7c15ull;
    return rng_mix(*state);
}

/* 0 .. n - 1; n is not 0. */
static inline uint64_t rng_below(uint64_t *state, uint64_t n)
{
    return rng_next(state) % n;
}

#endif
