/* SPDX-License-Identifier: MIT */
/* The order in which a repair writes (R13). */
#include "rules/rules.h"

static char kind_of(const struct record_entry *e, uint64_t block, uint64_t table)
{
    if (e->kind == ZQCOW2_IO_FLUSH)
        return 'F';
    if (e->kind != ZQCOW2_IO_WRITE)
        return '-';
    if (e->offset < 512)
        return 'M';
    if (e->offset >= block && e->offset < block + C)
        return 'R';
    return e->offset >= table && e->offset < table + C ? 'E' : '?';
}

/* M: the mark, R: refcounts, E: entries, F: a barrier; what follows is about space. */
static void order_of(char *text, size_t room)
{
    uint64_t block = raw_get(&raw, raw.rt, 8), table = raw_l2_at(&raw, 0);
    size_t n = 0;

    for (size_t i = 0; i < r.record.nr && n + 1 < room; i++)
        text[n++] = kind_of(&r.record.log[i], block, table);
    text[n] = 0;
}

static void repair_recorded(void)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct rig_be under = record_be(&r.record);
    struct zqcow2_backend *be;

    record_reset(&r.record);
    r.record.keep = true;
    assert_int_equal(zqcow2_backend_new(under.ops, under.self, NULL, &be), 0);
    o.flags = ZQCOW2_CHECK_REPAIR;
    assert_int_equal(zqcow2_check(be, &o, &res, NULL), 0);
    zqcow2_backend_close(be);
    r.record.keep = false;
}

void r13_order_of_a_repair(void **state)
{
    static const char want[] = "MFRFEFRF";
    char is[64];
    uint64_t first, second, entry;

    (void)state;
    begin(&wide);
    assert_int_equal(rig_write(&r, 0, 4 * C, 1), 0);
    close_all();
    first = raw_host(&raw, 0);
    second = raw_l2_at(&raw, C);
    entry = raw_get(&raw, second, 8);
    raw_set_refcount(&raw, first, 0);                     /* to be raised */
    raw_put(&raw, second, 8, entry & ~RAW_COPIED);        /* to be set right */
    raw_set_refcount(&raw, raw_host(&raw, 3 * C) + C, 1); /* to be lowered */
    repair_recorded();
    order_of(is, sizeof(is));
    if (strncmp(is, want, sizeof(want) - 1) || strcmp(is + strlen(is) - 2, "MF"))
        fail_msg("the repair went %s, not %s ... MF", is, want);
    assert_int_equal(raw_refcount(&raw, first), 1);
    assert_int_equal(raw_get(&raw, second, 8), entry);
    rig_end(&r);
    judged();
}
