/* SPDX-License-Identifier: MIT */
/* Reads, writes, applies and prints inputs. */
#include "fuzz/input.h"

#include <stdio.h>
#include <string.h>

struct reader {
    const uint8_t *p, *end;
    bool bad;
};

static uint64_t take(struct reader *r, unsigned n)
{
    uint64_t v = 0;

    if ((size_t)(r->end - r->p) < n) {
        r->bad = true;
        r->p = r->end;
        return 0;
    }
    for (unsigned i = 0; i < n; i++)
        v |= (uint64_t)*r->p++ << i * 8;
    return v;
}

static void take_value(struct reader *r, struct record *rec)
{
    rec->n = (uint8_t)(take(r, 1) % (INPUT_VALUE + 1));
    for (unsigned i = 0; i < rec->n; i++)
        rec->value[i] = (uint8_t)take(r, 1);
}

/* False: the end of the records. */
static bool take_record(struct reader *r, struct record *rec)
{
    memset(rec, 0, sizeof(*rec));
    rec->kind = (uint8_t)(take(r, 1) % 4);
    switch (rec->kind) {
    case REC_FIELD:
        rec->group = (uint8_t)(take(r, 1) % F_GROUPS);
        rec->index = (uint16_t)take(r, 2);
        take_value(r, rec);
        break;
    case REC_PLACE:
        rec->at = take(r, 6);
        take_value(r, rec);
        break;
    case REC_LENGTH: rec->at = take(r, 6); break;
    default: return false;
    }
    return !r->bad;
}

void input_parse(struct input *in, const uint8_t *data, size_t size)
{
    struct reader r = {data, data + size, false};

    in->seed = (uint16_t)take(&r, 2);
    in->nr = 0;
    while (in->nr < INPUT_RECORDS && take_record(&r, &in->rec[in->nr]))
        in->nr++;
    in->tail = r.p;
    in->tail_len = (size_t)(r.end - r.p);
}

static size_t put(uint8_t *out, uint64_t v, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        out[i] = (uint8_t)(v >> i * 8);
    return n;
}

static size_t put_record(uint8_t *out, const struct record *r)
{
    size_t n = put(out, r->kind, 1);

    if (r->kind == REC_FIELD) {
        n += put(out + n, r->group, 1);
        n += put(out + n, r->index, 2);
    } else {
        n += put(out + n, r->at, 6);
    }
    if (r->kind == REC_LENGTH)
        return n;
    n += put(out + n, r->n, 1);
    memcpy(out + n, r->value, r->n);
    return n + r->n;
}

size_t input_write(const struct input *in, uint8_t *out, size_t room)
{
    uint8_t one[16 + INPUT_VALUE];
    size_t n, size = 0;

    if (room < 3)
        return 0;
    size = put(out, in->seed, 2);
    for (unsigned i = 0; i < in->nr; i++) {
        n = put_record(one, &in->rec[i]);
        if (n >= room - size)
            break;
        memcpy(out + size, one, n);
        size += n;
    }
    size += put(out + size, REC_END, 1);
    n = in->tail_len < room - size ? in->tail_len : room - size;
    memcpy(out + size, in->tail, n);
    return size + n;
}

const struct field *input_field(const struct seed *s, const struct record *r)
{
    size_t n = s->fields.n[r->group];

    return n ? &s->fields.f[r->group][r->index % n] : NULL;
}

void input_apply(const struct input *in, struct disk *d)
{
    const struct seed *s = seed_of(in->seed);

    disk_init(d, s->bytes.b, s->bytes.len);
    for (unsigned i = 0; i < in->nr; i++) {
        const struct record *r = &in->rec[i];
        const struct field *f = r->kind == REC_FIELD ? input_field(s, r) : NULL;

        if (r->kind == REC_LENGTH)
            disk_resize(d, r->at);
        else if (f)
            disk_put(d, r->value, r->n, f->at);
        else if (r->kind == REC_PLACE)
            disk_put(d, r->value, r->n, r->at);
    }
}

void input_print(const struct input *in)
{
    static const char *const names[] = {"header",   "l1",       "l2",       "zones",
                                        "reftable", "refblock", "snapshot", "snap-l1",
                                        "snap-l2",  "bitmap",   "format",   "extension"};
    const struct seed *s = seed_of(in->seed);

    _Static_assert(sizeof(names) / sizeof(names[0]) == F_GROUPS, "each group has its name");
    printf("seed \"%s\"\n", s->name);
    for (unsigned i = 0; i < in->nr; i++) {
        const struct record *r = &in->rec[i];
        const struct field *f = r->kind == REC_FIELD ? input_field(s, r) : NULL;

        if (r->kind == REC_LENGTH)
            printf("  length 0x%llx", (unsigned long long)r->at);
        else if (f)
            printf("  %s[%u] at 0x%llx, %u bytes:", names[r->group], r->index,
                   (unsigned long long)f->at, f->width);
        else if (r->kind == REC_PLACE)
            printf("  at 0x%llx:", (unsigned long long)r->at);
        else
            printf("  %s has no field:", names[r->group]);
        for (unsigned k = 0; k < r->n; k++)
            printf(" %02x", r->value[k]);
        printf("\n");
    }
    printf("  tail of %zu bytes\n", in->tail_len);
}
