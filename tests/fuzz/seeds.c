/* SPDX-License-Identifier: MIT */
/* Makes the images that inputs start from. */
#include "fuzz/seeds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/disk.h"
#include "hostile/bases.h"
#include "hostile/bends.h"

struct seed *fuzz_seeds;
size_t fuzz_nr_seeds;

static uint16_t number(const char *name)
{
    uint32_t h = 2166136261u;

    for (; *name; name++)
        h = (h ^ (uint8_t)*name) * 16777619u;
    return (uint16_t)(h ^ h >> 16);
}

static void keep(struct pic *p, const char *name)
{
    struct seed *s;

    fuzz_seeds = realloc(fuzz_seeds, (fuzz_nr_seeds + 1) * sizeof(*s));
    if (!fuzz_seeds)
        fuzz_fail("no memory for the seeds");
    s = &fuzz_seeds[fuzz_nr_seeds++];
    memset(s, 0, sizeof(*s));
    snprintf(s->name, sizeof(s->name), "%s", name);
    s->id = number(name);
    s->bytes.b = pic_bytes(p, &s->bytes.len);
    fields_find(&s->fields, &s->bytes);
    pic_free(p);
}

static void load(const char *folder, const char *pattern)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", folder, pattern);
    bases_load(path, keep);
}

void seeds_make(void)
{
    static const char *const names[] = {"plain",     "snapshot", "zoned 44",
                                        "zoned 48b", "zoned 56", "zoned v7"};
    const char *source = getenv("ZQ_SOURCE_DIR"), *more = getenv("ZQ_FUZZ_IMAGES");

    if (fuzz_nr_seeds)
        return;
    for (int base = PLAIN; base <= ZV7; base++) {
        struct pic p;

        bend_base(&p, (enum base)base);
        keep(&p, names[base]);
    }
    bases_make(keep);
    load(source ? source : ZQ_SOURCE_DIR, "tests/hostile/images/*.gz");
    load(source ? source : ZQ_SOURCE_DIR, "tests/data/*/*.gz");
    if (more)
        load(more, "*.qcow2");
}

const struct seed *seed_of(uint16_t id)
{
    for (size_t i = 0; i < fuzz_nr_seeds; i++) {
        if (fuzz_seeds[i].id == id)
            return &fuzz_seeds[i];
    }
    return &fuzz_seeds[id % fuzz_nr_seeds];
}
