/* SPDX-License-Identifier: MIT */
/*
 * The state table, as one table: every state, every operation, under every pressure on the
 * resources that the geometry can come under.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "rig/rig.h"

enum op { WRITE, APPEND, FILL, OPEN, CLOSE, FINISH, RESET, NR_OPS };
enum row {
    EMPTY,
    IMP_OPEN,
    EXP_OPEN,
    EXP_OPEN_0,
    CLOSED,
    CLOSED_0,
    FULL,
    RDONLY,
    OFFLINE,
    NOT_WP,
    NR_ROWS
};

static const char *const op_names[NR_OPS] = {"write", "append", "fill", "open",
                                             "close", "finish", "reset"};
static const char *const row_names[NR_ROWS] = {
    "EMPTY",           "IMP_OPEN", "EXP_OPEN", "EXP_OPEN at start", "CLOSED",
    "CLOSED at start", "FULL",     "RDONLY",   "OFFLINE",           "NOT_WP"};

/* What a cell says: the next state or the refusal, and the resources it needs. */
struct cell {
    int to;
    char needs[3]; /* "A": an active one, "O": an open one */
};

#define S(state) \
    { \
        ZQCOW2_ZONE_##state, "" \
    }
#define N(state, needs) \
    { \
        ZQCOW2_ZONE_##state, needs \
    }
#define E(error) \
    { \
        ZQCOW2_EZONE_##error, "" \
    }

/* FILL is a write at the write pointer that reaches the capacity. */
static const struct cell linux_rules[NR_ROWS][NR_OPS] = {
    [EMPTY] = {N(IMP_OPEN, "AO"), N(IMP_OPEN, "AO"), N(FULL, "AO"), N(EXP_OPEN, "AO"), S(EMPTY),
               N(FULL, "AO"), S(EMPTY)},
    [IMP_OPEN] = {S(IMP_OPEN), S(IMP_OPEN), S(FULL), S(EXP_OPEN), S(CLOSED), S(FULL), S(EMPTY)},
    [EXP_OPEN] = {S(EXP_OPEN), S(EXP_OPEN), S(FULL), S(EXP_OPEN), S(CLOSED), S(FULL), S(EMPTY)},
    [EXP_OPEN_0] = {S(EXP_OPEN), S(EXP_OPEN), S(FULL), S(EXP_OPEN), S(EMPTY), S(FULL), S(EMPTY)},
    [CLOSED] = {N(IMP_OPEN, "O"), N(IMP_OPEN, "O"), N(FULL, "O"), N(EXP_OPEN, "O"), S(CLOSED),
                N(FULL, "O"), S(EMPTY)},
    [FULL] = {E(FULL), E(FULL), E(FULL), E(STATE), S(FULL), S(FULL), S(EMPTY)},
    [RDONLY] = {E(RDONLY), E(RDONLY), E(RDONLY), E(STATE), E(STATE), E(STATE), E(STATE)},
    [OFFLINE] = {E(OFFLINE), E(OFFLINE), E(OFFLINE), E(STATE), E(STATE), E(STATE), E(STATE)},
    [NOT_WP] = {S(NOT_WP), E(STATE), S(NOT_WP), E(STATE), E(STATE), E(STATE), E(STATE)},
};

static const struct cell zns_rules[NR_ROWS][NR_OPS] = {
    [EMPTY] = {N(IMP_OPEN, "AO"), N(IMP_OPEN, "AO"), N(FULL, "AO"), N(EXP_OPEN, "AO"), E(STATE),
               S(FULL), S(EMPTY)},
    [IMP_OPEN] = {S(IMP_OPEN), S(IMP_OPEN), S(FULL), S(EXP_OPEN), S(CLOSED), S(FULL), S(EMPTY)},
    [EXP_OPEN] = {S(EXP_OPEN), S(EXP_OPEN), S(FULL), S(EXP_OPEN), S(CLOSED), S(FULL), S(EMPTY)},
    [EXP_OPEN_0] = {S(EXP_OPEN), S(EXP_OPEN), S(FULL), S(EXP_OPEN), S(CLOSED), S(FULL), S(EMPTY)},
    [CLOSED] = {N(IMP_OPEN, "O"), N(IMP_OPEN, "O"), N(FULL, "O"), N(EXP_OPEN, "O"), S(CLOSED),
                S(FULL), S(EMPTY)},
    [CLOSED_0] = {N(IMP_OPEN, "O"), N(IMP_OPEN, "O"), N(FULL, "O"), N(EXP_OPEN, "O"), S(CLOSED),
                  S(FULL), S(EMPTY)},
    [FULL] = {E(FULL), E(FULL), E(FULL), E(STATE), E(STATE), S(FULL), S(EMPTY)},
    [RDONLY] = {E(RDONLY), E(RDONLY), E(RDONLY), E(STATE), E(STATE), E(STATE), E(STATE)},
    [OFFLINE] = {E(OFFLINE), E(OFFLINE), E(OFFLINE), E(STATE), E(STATE), E(STATE), E(STATE)},
    [NOT_WP] = {S(NOT_WP), E(STATE), S(NOT_WP), E(STATE), E(STATE), E(STATE), E(STATE)},
};

static const struct geometry geometries[] = {
    {.name = "no limits",
     .size = KiB(1024),
     .zone_size = KiB(128),
     .conventional = 1,
     .cluster = 65536},
    {.name = "capacity, 2 open of 3 active",
     .size = KiB(512),
     .zone_size = KiB(64),
     .capacity = KiB(48),
     .conventional = 1,
     .max_open = 2,
     .max_active = 3,
     .cluster = 4096},
    {.name = "odd capacity, 1 open of 1 active",
     .size = KiB(512),
     .zone_size = KiB(64),
     .capacity = 77 * 512,
     .conventional = 1,
     .max_open = 1,
     .max_active = 1,
     .cluster = 4096},
    {.name = "1 open of 2 active, clusters of 512",
     .size = KiB(256 + 5),
     .zone_size = KiB(32),
     .capacity = KiB(31),
     .conventional = 1,
     .max_open = 1,
     .max_active = 2,
     .cluster = 512},
    {.name = "3 active only, v7",
     .size = KiB(1024),
     .zone_size = KiB(128),
     .capacity = KiB(96),
     .conventional = 1,
     .max_active = 3,
     .max_append = KiB(16),
     .cluster = 65536,
     .layout = ZQCOW2_LAYOUT_V7},
    {.name = "2 open only, beyond 4 GiB",
     .size = GiB(12),
     .zone_size = GiB(1),
     .capacity = GiB(1) - 512,
     .conventional = 1,
     .max_open = 2,
     .cluster = 65536},
    {.name = "clusters of 2 MiB, short last",
     .size = MiB(33),
     .zone_size = MiB(4),
     .capacity = MiB(3),
     .conventional = 1,
     .max_open = 2,
     .max_active = 2,
     .cluster = 2u << 20,
     .layout = ZQCOW2_LAYOUT_48B,
     .max_append = MiB(1)},
};
#define NR_GEOMETRIES (sizeof(geometries) / sizeof(*geometries))

/* What the other zones hold when the operation comes. */
enum pressure {
    CALM,
    IMP_FILLS_OPEN,
    EXP_FILLS_OPEN,
    FILLS_ACTIVE,
    IMP_FILLS_BOTH,
    EXP_FILLS_BOTH,
    NR_PRESSURES
};
static const char *const pressure_names[NR_PRESSURES] = {"calm",
                                                         "open limit reached, implicitly",
                                                         "open limit reached, explicitly",
                                                         "active limit reached",
                                                         "both limits reached, implicitly",
                                                         "both limits reached, explicitly"};

#define TARGET 5u /* the short last zone is looked at in test_semantics.c */

struct at {
    struct rig rig;
    const struct geometry *g;
    enum row row;
    enum op op;
    enum pressure pressure;
    uint32_t target, eldest; /* eldest: the IMP_OPEN zone that has to give way */
};

static void where(const struct at *t, const char *what, long long is, long long want)
{
    fail_msg("%s rules, geometry \"%s\", %s, %s of %s: %s %lld, expected %lld",
             t->g->rules ? "ZNS" : "Linux", t->g->name, pressure_names[t->pressure],
             op_names[t->op], row_names[t->row], what, is, want);
}

static void expect(const struct at *t, const char *what, long long is, long long want)
{
    if (is != want)
        where(t, what, is, want);
}

static uint64_t capacity(const struct at *t)
{
    if (t->row == NOT_WP || !t->g->capacity)
        return t->g->zone_size;
    return t->g->capacity;
}

static int manage(struct at *t, int op, uint32_t zone)
{
    return rig_manage(&t->rig, op, rig_start(&t->rig, zone), t->g->zone_size, NULL);
}

static int force(struct at *t, unsigned state)
{
    return zqcow2_zone_set_state(t->rig.img, rig_start(&t->rig, t->target), state);
}

/* Two sectors are written in each state that has any. */
static void bring_to(struct at *t)
{
    uint64_t start = rig_start(&t->rig, t->target);
    bool writes = t->row != EMPTY && t->row != EXP_OPEN_0 && t->row != CLOSED_0 && t->row != NOT_WP;

    if (t->row == EXP_OPEN || t->row == EXP_OPEN_0 || t->row == CLOSED_0)
        expect(t, "open beforehand", manage(t, ZQCOW2_OP_ZONE_OPEN, t->target), 0);
    if (writes)
        expect(t, "write beforehand", rig_write(&t->rig, start, 1024, 1), 0);
    if (t->row == CLOSED || t->row == CLOSED_0)
        expect(t, "close beforehand", manage(t, ZQCOW2_OP_ZONE_CLOSE, t->target), 0);
    if (t->row == FULL)
        expect(t, "finish beforehand", manage(t, ZQCOW2_OP_ZONE_FINISH, t->target), 0);
    if (t->row == RDONLY)
        expect(t, "read-only beforehand", force(t, ZQCOW2_ZONE_RDONLY), 0);
    if (t->row == OFFLINE)
        expect(t, "offline beforehand", force(t, ZQCOW2_ZONE_OFFLINE), 0);
}

static bool writable_row(enum row row)
{
    return row != RDONLY && row != OFFLINE && row != NOT_WP && row != FULL;
}

static bool row_is_open(enum row row)
{
    return row == IMP_OPEN || row == EXP_OPEN || row == EXP_OPEN_0;
}

/* RDONLY and OFFLINE zones that hold data stay active. */
static bool row_is_active(enum row row)
{
    return row_is_open(row) || row == CLOSED || row == CLOSED_0 || row == RDONLY || row == OFFLINE;
}

/* Can the geometry come under this pressure with the target in its state? */
static bool possible(const struct at *t)
{
    bool exact = t->g->max_open && t->g->max_active;

    if (t->row == CLOSED_0 && t->g->rules == ZQCOW2_RULES_LINUX)
        return false; /* the zone becomes EMPTY */
    switch (t->pressure) {
    case IMP_FILLS_OPEN:
    case EXP_FILLS_OPEN:
        return t->g->max_open && (!t->g->max_active || t->g->max_open + (row_is_active(t->row) &&
                                                                         !row_is_open(t->row)) <=
                                                           t->g->max_active);
    case FILLS_ACTIVE: return t->g->max_active != 0;
    case IMP_FILLS_BOTH:
    case EXP_FILLS_BOTH:
        return exact && t->g->max_active >= t->g->max_open + (uint32_t)(row_is_active(t->row) &&
                                                                        !row_is_open(t->row));
    default: return true;
    }
}

static uint32_t next_other(const struct at *t, uint32_t i)
{
    return i + 1 == t->target ? i + 2 : i + 1;
}

/* Opens others until the limits are reached; closed ones first, since they need an open slot. */
static void press(struct at *t)
{
    bool exp = t->pressure == EXP_FILLS_OPEN || t->pressure == EXP_FILLS_BOTH;
    bool both = t->pressure >= FILLS_ACTIVE, opens = t->pressure != FILLS_ACTIVE;
    uint32_t open = t->g->max_open, active = t->g->max_active, i = next_other(t, 0), closed = 0;

    t->eldest = MODEL_NONE;
    if (t->pressure == CALM)
        return;
    open -= opens && row_is_open(t->row);
    active -= both && row_is_active(t->row);
    closed = !both ? 0 : opens ? active - open : active;
    for (; closed; closed--, i = next_other(t, i)) {
        expect(t, "others", rig_write(&t->rig, rig_start(&t->rig, i), 512, 2), 0);
        expect(t, "others", manage(t, ZQCOW2_OP_ZONE_CLOSE, i), 0);
    }
    for (; opens && open; open--, i = next_other(t, i)) {
        if (exp)
            expect(t, "others", manage(t, ZQCOW2_OP_ZONE_OPEN, i), 0);
        else
            expect(t, "others", rig_write(&t->rig, rig_start(&t->rig, i), 512, 2), 0);
        if (!exp && t->eldest == MODEL_NONE)
            t->eldest = i;
    }
}

/* The closed others need an open slot for a while: not the one that the target holds. */
static bool fits(const struct at *t)
{
    bool closes = t->pressure >= FILLS_ACTIVE;

    if (!closes || !t->g->max_open || !row_is_open(t->row))
        return true;
    return t->g->max_open > 1;
}

static int act(struct at *t)
{
    struct zqcow2_zone z = rig_zone(&t->rig, t->target);
    uint64_t start = rig_start(&t->rig, t->target), at = start;
    bool has_wp = writable_row(t->row);
    int op = ZQCOW2_OP_ZONE_OPEN + (int)(t->op - OPEN);

    if (t->op == WRITE)
        return rig_write(&t->rig, has_wp ? z.write_pointer : start, 1024, 3);
    if (t->op == APPEND)
        return rig_append(&t->rig, t->target, 1024, 3, &at);
    if (t->op == FILL) /* zeros: capacities of a gibibyte are no trouble */
        return zqcow2_write_zeroes(t->rig.img, capacity(t) - (has_wp ? z.write_pointer - start : 0),
                                   has_wp ? z.write_pointer : start, 0);
    return manage(t, op, t->target);
}

static const struct cell *cell_of(const struct at *t)
{
    return t->g->rules == ZQCOW2_RULES_ZNS ? &zns_rules[t->row][t->op] :
                                             &linux_rules[t->row][t->op];
}

/* From the cell and the pressure: 0 or the refusal. */
static int outcome(const struct at *t)
{
    const struct cell *c = cell_of(t);
    bool open_full = t->pressure != CALM && t->pressure != FILLS_ACTIVE;

    if (c->to < 0)
        return c->to;
    if (strchr(c->needs, 'A') &&
        (t->pressure >= FILLS_ACTIVE || (open_full && t->g->max_active == t->g->max_open)))
        return ZQCOW2_EZONE_ACTIVE;
    if (strchr(c->needs, 'O') && open_full && t->eldest == MODEL_NONE)
        return ZQCOW2_EZONE_OPEN;
    return 0;
}

static unsigned first_state(enum row row)
{
    static const unsigned states[NR_ROWS] = {
        ZQCOW2_ZONE_EMPTY,   ZQCOW2_ZONE_IMP_OPEN, ZQCOW2_ZONE_EXP_OPEN, ZQCOW2_ZONE_EXP_OPEN,
        ZQCOW2_ZONE_CLOSED,  ZQCOW2_ZONE_CLOSED,   ZQCOW2_ZONE_FULL,     ZQCOW2_ZONE_RDONLY,
        ZQCOW2_ZONE_OFFLINE, ZQCOW2_ZONE_NOT_WP};

    return states[row];
}

static uint64_t pointer_after(const struct at *t, const struct zqcow2_zone *before, unsigned state)
{
    if (state == ZQCOW2_ZONE_NOT_WP || state == ZQCOW2_ZONE_EMPTY)
        return before->start;
    if (state == ZQCOW2_ZONE_FULL)
        return before->start + before->length;
    if (state == ZQCOW2_ZONE_RDONLY || state == ZQCOW2_ZONE_OFFLINE)
        return UINT64_MAX;
    return before->write_pointer + (t->op == WRITE || t->op == APPEND ? 1024 : 0);
}

/* The others: all as they were, except for the one that had to give way. */
static void look_at_others(const struct at *t, struct rig *r, const struct zqcow2_zone *before,
                           uint32_t nr, bool evicts)
{
    for (uint32_t i = 0; i < nr; i++) {
        struct zqcow2_zone z = rig_zone(r, i);

        if (i == t->target)
            continue;
        if (evicts && i == t->eldest)
            expect(t, "the eldest is", z.state, ZQCOW2_ZONE_CLOSED);
        else if (memcmp(&z, &before[i], sizeof(z)))
            where(t, "another zone changed:", i, -1);
    }
}

static void count(struct at *t, const struct zqcow2_zone *z, uint32_t nr)
{
    struct zqcow2_info info = rig_info(&t->rig);
    uint32_t open = 0, active = 0;

    for (uint32_t i = 0; i < nr; i++) {
        bool o = z[i].state == ZQCOW2_ZONE_IMP_OPEN || z[i].state == ZQCOW2_ZONE_EXP_OPEN;

        open += o;
        active += o || z[i].state == ZQCOW2_ZONE_CLOSED || z[i].state == ZQCOW2_ZONE_RDONLY ||
                  z[i].state == ZQCOW2_ZONE_OFFLINE;
    }
    expect(t, "open zones", info.open_zones, open);
    expect(t, "active zones", info.active_zones, active);
}

static void one_cell(struct at *t)
{
    const struct cell *c = cell_of(t);
    struct zqcow2_zone before[16], after[16];
    uint32_t nr = 16, again = 16;
    unsigned state;
    int want;

    rig_begin(&t->rig, t->g);
    bring_to(t);
    press(t);
    assert_int_equal(zqcow2_zone_report(t->rig.img, 0, before, &nr), 0);
    expect(t, "state beforehand", before[t->target].state, first_state(t->row));
    want = outcome(t);
    expect(t, "result", act(t), want);
    assert_int_equal(zqcow2_zone_report(t->rig.img, 0, after, &again), 0);
    state = want ? first_state(t->row) : (unsigned)c->to;
    expect(t, "state", after[t->target].state, state);
    expect(t, "write pointer", (long long)after[t->target].write_pointer,
           (long long)(want ? before[t->target].write_pointer :
                              pointer_after(t, &before[t->target], state)));
    look_at_others(t, &t->rig, before, nr,
                   !want && strchr(c->needs, 'O') && t->eldest != MODEL_NONE);
    count(t, after, nr);
    rig_end(&t->rig);
}

static unsigned one_geometry(const struct geometry *g, enum zqcow2_rules rules)
{
    static struct at t;
    struct geometry under = *g;
    unsigned cells = 0;

    under.rules = rules;
    for (int row = 0; row < NR_ROWS; row++) {
        for (int op = 0; op < NR_OPS; op++) {
            for (int p = 0; p < NR_PRESSURES; p++) {
                t = (struct at){.g = &under,
                                .row = (enum row)row,
                                .op = (enum op)op,
                                .pressure = (enum pressure)p,
                                .target = row == NOT_WP ? 0 : TARGET};
                if (!possible(&t) || !fits(&t))
                    continue;
                one_cell(&t);
                cells++;
            }
        }
    }
    return cells;
}

static void every_cell(void **state)
{
    unsigned cells[2] = {0, 0};

    (void)state;
    for (size_t i = 0; i < NR_GEOMETRIES; i++) {
        cells[0] += one_geometry(&geometries[i], ZQCOW2_RULES_LINUX);
        cells[1] += one_geometry(&geometries[i], ZQCOW2_RULES_ZNS);
    }
    printf("state table: Linux: %d states, ZNS: %d; %d operations, %zu geometries, %u + %u cells\n",
           NR_ROWS - 1, NR_ROWS, NR_OPS, NR_GEOMETRIES, cells[0], cells[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_cell)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
