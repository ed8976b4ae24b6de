/* SPDX-License-Identifier: MIT */
/* Changes inputs as what they are: records about the fields of an image. */
#include <string.h>

#include "fuzz/target.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    seeds_make();
    return 0;
}

static bool pick_group(const struct seed *s, uint64_t *rng, uint8_t *group)
{
    for (int tries = 0; tries < 32; tries++) {
        *group = (uint8_t)(fields_rng(rng) % F_GROUPS);
        if (s->fields.n[*group] && fuzz_target.groups >> *group & 1)
            return true;
    }
    return false;
}

/* Big-endian as almost everything in the file, or the other way round. */
static void set_value(struct record *r, uint64_t v, unsigned width, bool little)
{
    r->n = (uint8_t)width;
    for (unsigned i = 0; i < width; i++)
        r->value[little ? i : width - 1 - i] = (uint8_t)(v >> i * 8);
}

static void new_value(const struct seed *s, struct record *r, uint64_t *rng)
{
    const struct field *f = r->kind == REC_FIELD ? input_field(s, r) : NULL;
    uint64_t at = f ? f->at : r->at;
    unsigned width = f ? f->width : 1u << fields_rng(rng) % 4;
    uint64_t v = fields_value(&s->fields, &s->bytes, rng, bytes_get(&s->bytes, at, width), width);
    bool little = r->group == F_ZONES || r->group == F_EXTENSION ? fields_rng(rng) % 3 == 0 : false;

    set_value(r, v, width, little);
}

static void new_record(const struct seed *s, struct record *r, uint64_t *rng)
{
    uint64_t cluster = 1ull << bytes_get(&s->bytes, 20, 4);

    memset(r, 0, sizeof(*r));
    r->kind = REC_FIELD;
    if (fields_rng(rng) % 16 < 13 && pick_group(s, rng, &r->group)) {
        r->index = (uint16_t)(fields_rng(rng) % s->fields.n[r->group]);
        new_value(s, r, rng);
    } else if (fields_rng(rng) % 8) {
        r->kind = REC_PLACE;
        r->at = fields_rng(rng) % (s->bytes.len / cluster + 2) * cluster +
                fields_rng(rng) % (cluster < 512 ? cluster : 512) / 8 * 8;
        new_value(s, r, rng);
    } else {
        r->kind = REC_LENGTH;
        r->at = fields_rng(rng) % 3 ? fields_rng(rng) % (s->bytes.len + cluster) :
                                      1ull << fields_rng(rng) % 44;
    }
}

static void change_record(const struct seed *s, struct input *in, uint64_t *rng)
{
    struct record *r = &in->rec[fields_rng(rng) % in->nr];

    switch (fields_rng(rng) % 4) {
    case 0: *r = in->rec[--in->nr]; break;
    case 1:
        if (r->n)
            r->n = (uint8_t)LLVMFuzzerMutate(r->value, r->n, INPUT_VALUE);
        break;
    case 2:
        r->index = (uint16_t)(r->index + (fields_rng(rng) % 2 ? 1 : -1));
        r->at += fields_rng(rng) % 2 ? 8 : (uint64_t)-8;
        r->at &= (1ull << 48) - 1;
        break;
    default:
        if (r->kind != REC_LENGTH)
            new_value(s, r, rng);
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed)
{
    static uint8_t tail[1 << 16];
    uint64_t rng = seed * 0x9e3779b97f4a7c15ull + 1, what;
    struct input in;
    const struct seed *s;

    input_parse(&in, data, size);
    what = fields_rng(&rng) % 16;
    if (what == 0)
        in.seed = fuzz_seeds[fields_rng(&rng) % fuzz_nr_seeds].id;
    s = seed_of(in.seed);
    in.tail_len = in.tail_len < sizeof(tail) ? in.tail_len : sizeof(tail);
    memcpy(tail, in.tail, in.tail_len);
    in.tail = tail;
    if (!fuzz_target.tail)
        in.tail_len = 0;
    else if (what >= 8)
        in.tail_len = LLVMFuzzerMutate(tail, in.tail_len, room < 512 ? room : 512);
    if (what < 10 && in.nr && (in.nr == INPUT_RECORDS || fields_rng(&rng) % 2))
        change_record(s, &in, &rng);
    else if (what && in.nr < INPUT_RECORDS && (what < 10 || !fuzz_target.tail))
        new_record(s, &in.rec[in.nr++], &rng);
    return input_write(&in, data, room);
}

/* The one's seed, records of both, the other's tail. */
size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size,
                                 uint8_t *out, size_t room, unsigned seed)
{
    uint64_t rng = seed * 0x9e3779b97f4a7c15ull + 1;
    struct input x, y;

    input_parse(&x, a, a_size);
    input_parse(&y, b, b_size);
    for (unsigned i = 0; i < y.nr && x.nr < INPUT_RECORDS; i++) {
        if (fields_rng(&rng) % 2)
            x.rec[x.nr++] = y.rec[i];
    }
    x.tail = y.tail;
    x.tail_len = y.tail_len;
    return input_write(&x, out, room);
}
