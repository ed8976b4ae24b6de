/* SPDX-License-Identifier: MIT */
/* What the stories share, and the judge of every state that a crash could leave. */
#include "image/image.h"
#include "rules/rules.h"

#define MOST_ENDS 10000u /* operations, the janitor among them, that end within one call */

const struct geometry wide = {.name = "4 KiB",
                              .size = 8 * Z,
                              .zone_size = Z,
                              .capacity = Z - KiB(16),
                              .conventional = 2,
                              .cluster = C};
const struct geometry tiny = {
    .name = "512", .size = 8 * Z, .zone_size = Z, .conventional = 4, .cluster = 512};

/* What a zone may hold: so many bytes of one tag, then, once it is finished, zeros. */
struct life {
    uint32_t zone;
    uint64_t tag, len;
    bool finished;
};

struct rig r;
struct raw raw;
struct zqcow2_queue *q;
static struct ticket *sent[256];
static unsigned nr_sent;
static struct life lives[8];
static unsigned nr_lives;
static uint64_t steps;
static char wrong[240];

/* ---- the judge ---- */

void life(uint32_t zone, uint64_t tag, uint64_t len, bool finished)
{
    assert_true(nr_lives < sizeof(lives) / sizeof(*lives));
    lives[nr_lives++] = (struct life){zone, tag, len, finished};
}

static bool lived(const struct life *l, const uint8_t *is, uint64_t len, bool full)
{
    static uint8_t want[Z];
    uint64_t written = len < l->len ? len : l->len;

    if (len > l->len && !(l->finished && full))
        return false;
    memset(want, 0, sizeof(want));
    rig_pattern(want, written, l->zone * Z, l->tag);
    return !memcmp(is, want, (size_t)len);
}

/* Of a zone that has lives; the stories' zones have Z bytes. */
static bool zone_is_sound(uint32_t zone)
{
    static uint8_t is[Z];
    uint64_t start = zone * Z, wp = raw_wp(&raw, zone), end = raw_zone_end(&raw, zone);

    if (wp <= start || wp > end)
        return wp == start;
    raw_read(&raw, is, wp - start, start);
    for (unsigned i = 0; i < nr_lives; i++) {
        if (lives[i].zone == zone && lived(&lives[i], is, wp - start, wp == end))
            return true;
    }
    return false;
}

static bool has_lives(uint32_t zone)
{
    for (unsigned i = 0; i < nr_lives; i++) {
        if (lives[i].zone == zone)
            return true;
    }
    return false;
}

static void judge(void *arg, const struct zqcow2_io *io)
{
    (void)arg;
    steps++;
    if (wrong[0])
        return;
    if (!raw_find(&raw, raw.s) || !raw_sound(&raw))
        snprintf(wrong, sizeof(wrong), "behind I/O %llu (kind %u at %#llx): %s",
                 (unsigned long long)steps, io->kind, (unsigned long long)io->offset, raw.why);
    for (uint32_t i = raw.conventional; i < raw.nr_zones && !wrong[0]; i++) {
        if (has_lives(i) && !zone_is_sound(i))
            snprintf(wrong, sizeof(wrong),
                     "behind I/O %llu (kind %u at %#llx): zone %u, pointer +%#llx, holds no life",
                     (unsigned long long)steps, io->kind, (unsigned long long)io->offset, i,
                     (unsigned long long)(raw_wp(&raw, i) - i * Z));
    }
}

/* ---- the watchdog: it counts what the loop does, which needs no I/O to have no end ---- */

static const struct zq_upper *upper;
static unsigned ends;

static void end_of_one(struct zq_core *c, struct zq_op *op, int rc)
{
    if (++ends > MOST_ENDS) {
        fprintf(stderr, "hung: %u operations have ended within one call: FAILED\n", ends);
        exit(1);
    }
    upper->end(c, op, rc);
}

static bool is_idle(struct zq_core *c)
{
    return upper->idle(c);
}

static const struct zq_upper watched = {.end = end_of_one, .idle = is_idle};

/* ---- stories ---- */

void open_all(void)
{
    assert_int_equal(rig_open(&r, true), 0);
    upper = r.img->core.upper;
    r.img->core.upper = &watched;
    r.shuffle.after = judge;
    assert_true(raw_find(&raw, &r.store));
    assert_int_equal(zqcow2_queue_open(r.img, 32, &q), 0);
}

void begin_on(const struct geometry *g, uint32_t io_align)
{
    ticket_begin();
    nr_sent = nr_lives = 0;
    steps = 0;
    wrong[0] = 0;
    memset(&raw, 0, sizeof(raw));
    rig_init(&r, g, RIG_HELD, 1);
    r.store.limits.io_align = io_align;
    assert_int_equal(rig_create(&r), 0);
    open_all();
}

void begin(const struct geometry *g)
{
    begin_on(g, 0);
}

static void close_queue(void)
{
    assert_int_equal(zqcow2_queue_close(q), 0);
    q = NULL;
}

void go(void)
{
    for (unsigned idle = 0; idle < 3; idle++) {
        uint64_t done = r.shuffle.done;
        unsigned seen = completions;

        ends = 0;
        poll_queue(q, 0);
        if (done != r.shuffle.done || seen != completions)
            idle = 0;
    }
}

static struct ticket *keep(struct ticket *t)
{
    assert_true(nr_sent < sizeof(sent) / sizeof(*sent));
    return sent[nr_sent++] = t;
}

struct ticket *post(int op, uint64_t off, uint64_t len, uint64_t tag)
{
    struct ticket *t = keep(ticket(op, off, len, tag));

    assert_int_equal(submit(q, t), 1);
    return t;
}

struct ticket *send(int op, uint64_t off, uint64_t len, uint64_t tag)
{
    struct ticket *t = post(op, off, len, tag);

    go();
    return t;
}

struct ticket *write_fua(uint64_t off, uint64_t len, uint64_t tag)
{
    struct ticket *t = keep(ticket(ZQCOW2_OP_WRITE, off, len, tag));

    t->req.flags = ZQCOW2_FUA;
    assert_int_equal(submit(q, t), 1);
    go();
    return t;
}

struct ticket *flush(void)
{
    return send(ZQCOW2_OP_FLUSH, 0, 0, 0);
}

void hold(uint32_t kinds, uint64_t off, uint64_t len)
{
    shuffle_hold(&r.shuffle, kinds, off, len);
}

void hold_all(uint32_t kinds)
{
    hold(kinds, 0, UINT64_MAX);
}

uint32_t held(void)
{
    return shuffle_held(&r.shuffle);
}

void release(void)
{
    shuffle_release(&r.shuffle);
    go();
}

void release_all_but(uint32_t kinds, uint64_t off, uint64_t len)
{
    shuffle_release(&r.shuffle);
    hold(kinds, off, len);
    go();
}

void done(const struct ticket *t, int ret)
{
    if (t->calls != 1 || t->ret != ret)
        fail_msg("%s at %#llx: answered %u times, %d; expected %d", rig_op_name(t->req.op),
                 (unsigned long long)t->req.offset, t->calls, t->ret, ret);
}

void waits(const struct ticket *t)
{
    if (t->calls)
        fail_msg("%s at %#llx did not wait", rig_op_name(t->req.op),
                 (unsigned long long)t->req.offset);
}

bool got(const struct ticket *t, uint64_t tag)
{
    uint8_t want[KiB(64)];

    rig_pattern(want, t->iov.iov_len, t->req.offset, tag);
    return !memcmp(t->buf, want, t->iov.iov_len);
}

void close_all(void)
{
    close_queue();
    assert_int_equal(rig_close(&r), 0);
}

void settled(void)
{
    release();
    for (unsigned i = 0; i < nr_sent; i++) {
        assert_int_equal(sent[i]->calls, 1);
        drop(sent[i]);
    }
    nr_sent = 0;
    if (q)
        close_queue();
}

void judged(void)
{
    assert_true(steps > 0);
    if (wrong[0])
        fail_msg("%s", wrong);
}

void end(void)
{
    settled();
    rig_end(&r);
    judged();
}

void end_shared(void)
{
    settled();
    assert_int_equal(rig_close(&r), 0);
    assert_true(raw_sound(&raw));
    for (unsigned i = 0; i < raw.nr_extra; i++)
        assert_in_range(raw_refcount(&raw, raw.extra[i]), 1, 2);
    free(raw.extra);
    assert_null(rig_free(&r));
    judged();
}

void share(uint64_t guest, bool table)
{
    close_all();
    raw_share(&raw, guest, table);
    open_all();
}

void zone_with_data_grows(uint64_t len)
{
    lives[0].len += len;
}

void zone_with_data(void)
{
    begin(&wide);
    life(2, 1, KiB(32), false);
    assert_int_equal(rig_write(&r, 2 * Z, KiB(32), 1), 0);
    assert_int_equal(zqcow2_flush(r.img), 0);
    assert_int_equal(raw_wp(&raw, 2), 2 * Z + KiB(32));
}

void hold_data(uint32_t kinds, uint64_t guest, uint64_t len)
{
    uint64_t host = raw_host(&raw, guest);

    assert_int_not_equal(host, 0);
    hold(kinds, host, len);
}

void end_dead(void)
{
    done(send(ZQCOW2_OP_APPEND, 4 * Z, C, 1), ZQCOW2_EDEAD);
    settled();
    record_reset(&r.record);
    assert_int_equal(rig_close(&r), ZQCOW2_EDEAD);
    assert_int_equal(r.record.calls[ZQCOW2_IO_WRITE], 0);
    assert_null(rig_free(&r));
    judged();
}
