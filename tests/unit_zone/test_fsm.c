/* SPDX-License-Identifier: MIT */
/*
 * The state machine of one zone against the table of the design, written here as there: a row for
 * each state, a column for each action. The expected verdicts are read from these words alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "zone/fsm.h"

/*
 * "-": success, nothing changes. A state: the zone enters it; behind it the resources that it must
 * find free, A (active) and O (open). "X/Y": X, or Y if nothing is written or reserved. "!":
 * refused.
 */
struct row {
    uint8_t state;
    const char *on[ZQ_ACTIONS]; /* write, open, close, finish, reset */
};

#define ROWS 8

static const struct row linux_rules[ROWS] = {
    {ZQCOW2_ZONE_EMPTY, {"IMP AO", "EXP AO", "-", "FULL AO", "-"}},
    {ZQCOW2_ZONE_IMP_OPEN, {"-", "EXP", "CLOSED/EMPTY", "FULL", "EMPTY"}},
    {ZQCOW2_ZONE_EXP_OPEN, {"-", "-", "CLOSED/EMPTY", "FULL", "EMPTY"}},
    {ZQCOW2_ZONE_CLOSED, {"IMP O", "EXP O", "-", "FULL O", "EMPTY"}},
    {ZQCOW2_ZONE_FULL, {"!FULL", "!STATE", "-", "-", "EMPTY"}},
    {ZQCOW2_ZONE_RDONLY, {"!RDONLY", "!STATE", "!STATE", "!STATE", "!STATE"}},
    {ZQCOW2_ZONE_OFFLINE, {"!OFFLINE", "!STATE", "!STATE", "!STATE", "!STATE"}},
    {ZQCOW2_ZONE_NOT_WP, {"!STATE", "!STATE", "!STATE", "!STATE", "!STATE"}},
};

/* From the zone state machine of NVMe ZNS: ZSE, ZSIO, ZSEO, ZSC, ZSF, ZSRO, ZSO. */
static const struct row zns_rules[ROWS] = {
    {ZQCOW2_ZONE_EMPTY, {"IMP AO", "EXP AO", "!STATE", "FULL", "-"}},
    {ZQCOW2_ZONE_IMP_OPEN, {"-", "EXP", "CLOSED", "FULL", "EMPTY"}},
    {ZQCOW2_ZONE_EXP_OPEN, {"-", "-", "CLOSED", "FULL", "EMPTY"}},
    {ZQCOW2_ZONE_CLOSED, {"IMP O", "EXP O", "-", "FULL", "EMPTY"}},
    {ZQCOW2_ZONE_FULL, {"!FULL", "!STATE", "!STATE", "-", "EMPTY"}},
    {ZQCOW2_ZONE_RDONLY, {"!RDONLY", "!STATE", "!STATE", "!STATE", "!STATE"}},
    {ZQCOW2_ZONE_OFFLINE, {"!OFFLINE", "!STATE", "!STATE", "!STATE", "!STATE"}},
    {ZQCOW2_ZONE_NOT_WP, {"!STATE", "!STATE", "!STATE", "!STATE", "!STATE"}},
};

static const struct {
    const char *name;
    uint8_t state;
} states[] = {
    {"IMP", ZQCOW2_ZONE_IMP_OPEN}, {"EXP", ZQCOW2_ZONE_EXP_OPEN}, {"CLOSED", ZQCOW2_ZONE_CLOSED},
    {"EMPTY", ZQCOW2_ZONE_EMPTY},  {"FULL", ZQCOW2_ZONE_FULL},
};

static const struct {
    const char *name;
    int rc;
} refusals[] = {
    {"FULL", ZQCOW2_EZONE_FULL},
    {"STATE", ZQCOW2_EZONE_STATE},
    {"RDONLY", ZQCOW2_EZONE_RDONLY},
    {"OFFLINE", ZQCOW2_EZONE_OFFLINE},
};

static int refusal(const char *word)
{
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        if (!strcmp(word, refusals[i].name))
            return refusals[i].rc;
    }
    fail_msg("no refusal is called %s", word);
    return 0;
}

static uint8_t state_named(const char *word)
{
    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
        if (!strncmp(word, states[i].name, strlen(states[i].name)))
            return states[i].state;
    }
    fail_msg("no state is called %s", word);
    return 0;
}

static struct zq_verdict expected(uint8_t from, const char *cell, bool at_start)
{
    struct zq_verdict v = {.state = from};
    const char *otherwise = strchr(cell, '/'), *needs = strchr(cell, ' ');

    if (cell[0] == '!')
        v.rc = refusal(cell + 1);
    if (cell[0] == '!' || cell[0] == '-')
        return v;
    v.state = state_named(otherwise && at_start ? otherwise + 1 : cell);
    v.needs_active = needs && strchr(needs, 'A');
    v.needs_open = needs && strchr(needs, 'O');
    v.changes = true;
    return v;
}

static unsigned every_cell(enum zqcow2_rules rules, const struct row *table)
{
    unsigned cells = 0;

    for (size_t row = 0; row < ROWS; row++) {
        for (unsigned k = 0; k < 2 * ZQ_ACTIONS; k++, cells++) {
            unsigned action = k / 2;
            struct zq_verdict want = expected(table[row].state, table[row].on[action], k & 1);
            struct zq_verdict got = zq_fsm(rules, table[row].state, (enum zq_action)action, k & 1);

            if (got.rc != want.rc || got.state != want.state || got.changes != want.changes ||
                got.needs_active != want.needs_active || got.needs_open != want.needs_open)
                fail_msg("rules %d, state %u, action %u, at start %u: %d, state %u, A %d, O %d, "
                         "changes %d; "
                         "the table says \"%s\"",
                         rules, table[row].state, action, k & 1, got.rc, got.state,
                         got.needs_active, got.needs_open, got.changes, table[row].on[action]);
        }
    }
    return cells;
}

static void every_cell_of_both_tables(void **state)
{
    unsigned cells = every_cell(ZQCOW2_RULES_LINUX, linux_rules);

    (void)state;
    cells += every_cell(ZQCOW2_RULES_ZNS, zns_rules);
    printf("state machine: 2 sets of rules, %u verdicts\n", cells);
}

/* What counts against the limits: open = IMP_OPEN + EXP_OPEN, active = open + CLOSED. */
static void what_counts_against_the_limits(void **state)
{
    (void)state;
    for (size_t row = 0; row < ROWS; row++) {
        uint8_t s = linux_rules[row].state;
        bool open = s == 2 || s == 3; /* the numbers of <linux/blkzoned.h> */

        assert_int_equal(zq_state_is_open(s), open);
        assert_int_equal(zq_state_is_active(s), open || s == 4);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cell_of_both_tables),
        cmocka_unit_test(what_counts_against_the_limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
