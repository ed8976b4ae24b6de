/* SPDX-License-Identifier: MIT */
/* fuzz_corpus FOLDER: an input for each seed as it is, and one for each bend of tests/hostile. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/input.h"
#include "hostile/bends.h"

static void write_input(const char *folder, unsigned number, const struct input *in)
{
    uint8_t data[4096];
    size_t n = input_write(in, data, sizeof(data));
    char path[512];
    FILE *f;

    snprintf(path, sizeof(path), "%s/seed-%03u", folder, number);
    f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f) != 0) {
        perror(path);
        exit(1);
    }
}

static void bend_input(struct input *in, const struct bend *b)
{
    struct pic p;

    bend_base(&p, b->base);
    in->nr = 0;
    for (int i = 0; i < 3; i++) {
        const struct poke *k = &b->poke[i];
        struct record *r = &in->rec[in->nr];

        if (k->place != CUT && !k->width)
            continue;
        memset(r, 0, sizeof(*r));
        r->kind = k->place == CUT ? REC_LENGTH : REC_PLACE;
        r->at = k->place == CUT ? k->value : (bend_place(&p, k->place) + k->at) & 0xffffffff;
        r->n = (uint8_t)k->width;
        for (unsigned n = 0; n < k->width; n++)
            r->value[k->width - 1 - n] = (uint8_t)(k->value >> n * 8);
        in->nr++;
    }
    pic_free(&p);
}

int main(int argc, char **argv)
{
    /* A tail for the targets that read one: some of every operation. */
    static const uint8_t tail[] = {0x21, 0, 0, 7, 0x2a, 1, 0, 0, 0xc3, 0, 0, 0,  0x01, 0, 0, 3,
                                   0xe0, 0, 0, 0, 0x23, 9, 0, 1, 0x24, 0, 0, 15, 0xc2, 0, 1, 0};
    struct input in = {.tail = tail, .tail_len = sizeof(tail)};
    unsigned number = 0;

    if (argc != 2) {
        fprintf(stderr, "usage: fuzz_corpus FOLDER\n");
        return 2;
    }
    seeds_make();
    for (size_t i = 0; i < fuzz_nr_seeds; i++) {
        in.seed = fuzz_seeds[i].id;
        write_input(argv[1], number++, &in);
    }
    for (size_t i = 0; i < nr_bends; i++) {
        in.seed = fuzz_seeds[bends[i].base].id; /* the first ones, in this order */
        bend_input(&in, &bends[i]);
        write_input(argv[1], number++, &in);
    }
    printf("fuzz_corpus: %u inputs\n", number);
    return 0;
}
