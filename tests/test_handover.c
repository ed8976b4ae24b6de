/* SPDX-License-Identifier: MIT */
/*
 * Hand-over: images that are opened inactive, give up their file, and take it back, in one process.
 */
#include "handover.h"

/* ---- in one process ---- */

static void each_snapshot(void *arg, const struct zqcow2_snapshot *s)
{
    (void)arg;
    (void)s;
}

/* Whatever would read or write the file. */
static void refuses_everything(struct zqcow2_image *img)
{
    struct zqcow2_snapshot s = ZQCOW2_SNAPSHOT_INIT;
    struct zqcow2_extent e = ZQCOW2_EXTENT_INIT;
    struct zqcow2_io_limits limits = ZQCOW2_IO_LIMITS_INIT;
    struct zqcow2_dirty_range range;
    struct zqcow2_zone zone;
    uint8_t buf[UNIT] = {0};
    uint64_t at = 2 * ZONE, since = 0;
    uint32_t nr = 1;

    s.name = "s";
    assert_int_equal(zqcow2_read(img, buf, UNIT, 0), ZQCOW2_EINACTIVE);
    assert_int_equal(zqcow2_write(img, buf, UNIT, 0, 0), ZQCOW2_EINACTIVE);
    assert_int_equal(zqcow2_append(img, buf, UNIT, &at, 0), ZQCOW2_EINACTIVE);
    assert_int_equal(zqcow2_discard(img, UNIT, 0, 0), ZQCOW2_EINACTIVE);
    assert_int_equal(zqcow2_write_zeroes(img, UNIT, 0, 0), ZQCOW2_EINACTIVE);
    assert_int_equal(zqcow2_zone_reset(img, 0, ZONES * ZONE, 0), ZQCOW2_EINACTIVE);
    assert_int_equal(zqcow2_zone_report(img, 0, &zone, &nr), ZQCOW2_EINACTIVE);
    assert_int_equal(zqcow2_zone_set_state(img, at, ZQCOW2_ZONE_OFFLINE), ZQCOW2_EINACTIVE);
    assert_int_equal(zqcow2_block_status(img, 0, UNIT, &e), ZQCOW2_EINACTIVE);
    assert_int_equal(zqcow2_snapshot_take(img, &s, NULL), ZQCOW2_EINACTIVE);
    assert_int_equal(zqcow2_snapshot_list(img, each_snapshot, NULL, NULL), ZQCOW2_EINACTIVE);
    assert_int_equal(zqcow2_snapshot_apply(img, "s", NULL), ZQCOW2_EINACTIVE);
    assert_int_equal(zqcow2_resize(img, 32 * ZONE, 0, NULL), ZQCOW2_EINACTIVE);
    assert_int_equal(zqcow2_bitmap_add(img, "b", 0, 0, NULL), ZQCOW2_EINACTIVE);
    assert_int_equal(zqcow2_bitmap_ranges(img, "b", 0, &range, &nr, NULL), ZQCOW2_EINACTIVE);
    assert_int_equal(zqcow2_compact(img, NULL, NULL, NULL), ZQCOW2_EINACTIVE);
    assert_int_equal(zqcow2_get_io_limits(img, &limits), ZQCOW2_EINACTIVE);
    assert_int_equal(zqcow2_zone_find(img, &at, 0, &zone, &nr), ZQCOW2_EINACTIVE);
    assert_int_equal(zqcow2_zone_changes(img, &since, &at, &nr), ZQCOW2_EINACTIVE);
    assert_int_equal(zqcow2_flush(img), 0);
    assert_int_equal(zqcow2_drain(img), 0);
    assert_true(flags_of(img) & ZQCOW2_INFO_INACTIVE);
}

static void one_at_a_time(void **state)
{
    struct zqcow2_create_options how = shape();
    struct zqcow2_error err;
    struct zqcow2_image *a, *b;
    struct zqcow2_zone zone;
    uint32_t nr = 1;

    (void)state;
    create(&how);
    a = open_as(ZQCOW2_OPEN_RDWR);
    b = open_as(ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_INACTIVE);
    refuses_everything(b);
    assert_int_equal(zqcow2_activate(b, &err), -EAGAIN);
    assert_non_null(strstr(err.text, "locked by another program"));
    assert_int_equal(zqcow2_activate(a, NULL), 0); /* it is */
    assert_int_equal(put(a, UNIT, 1), 0);
    assert_int_equal(put(a, 2 * ZONE, 2), 0);
    assert_int_equal(zqcow2_zone_open(a, 3 * ZONE, ZONE, 0), 0);
    assert_int_equal(zqcow2_inactivate(a, &err), 0);
    assert_int_equal(zqcow2_inactivate(a, &err), 0);
    refuses_everything(a);
    assert_int_equal(zqcow2_activate(b, &err), 0);
    assert_int_equal(zqcow2_activate(b, &err), 0);
    assert_int_equal(zqcow2_activate(a, &err), -EAGAIN);
    assert_int_equal(holds(b, UNIT, 1), 1);
    assert_int_equal(holds(b, 2 * ZONE, 2), 1);
    assert_int_equal(zqcow2_zone_report(b, 2 * ZONE, &zone, &nr), 0);
    assert_int_equal(zone.state, ZQCOW2_ZONE_CLOSED);
    assert_int_equal(zone.write_pointer, 2 * ZONE + UNIT);
    assert_int_equal(zqcow2_zone_report(b, 3 * ZONE, &zone, &nr), 0);
    assert_int_equal(zone.state, ZQCOW2_ZONE_EMPTY);
    assert_int_equal(put(b, 2 * ZONE + UNIT, 3), 0);
    assert_int_equal(zqcow2_resize(b, (ZONES + 2) * ZONE, 0, NULL), 0);
    assert_int_equal(zqcow2_inactivate(b, &err), 0);
    assert_int_equal(zqcow2_activate(a, &err), 0);
    assert_false(flags_of(a) & ZQCOW2_INFO_INACTIVE);
    assert_int_equal(holds(a, 2 * ZONE + UNIT, 3), 1);
    assert_int_equal(put(a, (ZONES + 1) * ZONE, 4), 0); /* which is new to it */
    assert_int_equal(zqcow2_close(b), 0);
    assert_int_equal(zqcow2_close(a), 0);
}

static void readers(void **state)
{
    struct zqcow2_create_options how = shape();
    struct zqcow2_image *w, *r;

    (void)state;
    create(&how);
    r = open_as(0);
    w = open_as(ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_INACTIVE);
    assert_int_equal(zqcow2_activate(w, NULL), -EAGAIN);
    assert_int_equal(zqcow2_inactivate(r, NULL), 0);
    assert_int_equal(zqcow2_activate(w, NULL), 0);
    assert_int_equal(put(w, 0, 9), 0);
    assert_int_equal(zqcow2_activate(r, NULL), -EAGAIN);
    assert_int_equal(zqcow2_close(w), 0);
    assert_int_equal(zqcow2_activate(r, NULL), 0);
    assert_int_equal(holds(r, 0, 9), 1);
    assert_int_equal(put(r, 0, 9), -EROFS);
    assert_int_equal(zqcow2_close(r), 0);
}

static void another_image(void **state)
{
    struct zqcow2_create_options how = shape();
    struct zqcow2_image *img;
    struct zqcow2_error err;

    (void)state;
    create(&how);
    img = open_as(ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_INACTIVE);
    how.zone_size = 2 * ZONE;
    create(&how);
    assert_int_equal(zqcow2_activate(img, &err), -ESTALE);
    refuses_everything(img);
    how.zone_size = ZONE;
    create(&how);
    assert_int_equal(zqcow2_activate(img, &err), 0);
    assert_int_equal(put(img, 0, 1), 0);
    assert_int_equal(zqcow2_close(img), 0);
}

/*
 * The last owner has left a write pointer within a block, which is found when all else is read.
 * What could not be activated stays inactive: it can be tried again, and a close leaves the file
 * alone.
 */
static void fails_at_the_end(void **state)
{
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_create_options how = shape();
    uint8_t sectors[UNIT] = {0};
    struct zqcow2_image *a, *b, *c;

    (void)state;
    create(&how);
    a = open_as(ZQCOW2_OPEN_RDWR);
    opt.flags = ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_INACTIVE;
    opt.block_size = UNIT;
    assert_int_equal(zqcow2_open(file(path, false), &opt, &b, NULL), 0);
    assert_int_equal(zqcow2_open(file(path, false), &opt, &c, NULL), 0);
    assert_int_equal(zqcow2_write(a, sectors, 512, 2 * ZONE, 0), 0);
    assert_int_equal(zqcow2_inactivate(a, NULL), 0);
    assert_int_equal(zqcow2_activate(b, NULL), -EINVAL);
    assert_int_equal(zqcow2_activate(c, NULL), -EINVAL);
    refuses_everything(b);
    assert_int_equal(zqcow2_activate(a, NULL), 0);
    assert_int_equal(zqcow2_close(b), 0);
    assert_int_equal(zqcow2_write(a, sectors, UNIT - 512, 2 * ZONE + 512, 0), 0);
    assert_int_equal(zqcow2_close(a), 0);
    assert_int_equal(zqcow2_activate(c, NULL), 0);
    assert_int_equal(put(c, 2 * ZONE + UNIT, 1), 0);
    assert_int_equal(zqcow2_close(c), 0);
}

/* Its bitmap is stored with each hand-over, and goes on with the next owner. */
static void bitmaps_go_along(void **state)
{
    struct zqcow2_create_options how = shape();
    struct zqcow2_dirty_range range[4];
    struct zqcow2_image *a, *b;
    uint32_t nr = 4;

    (void)state;
    create(&how);
    a = open_as(ZQCOW2_OPEN_RDWR);
    b = open_as(ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_INACTIVE);
    assert_int_equal(zqcow2_bitmap_add(a, "b", UNIT, 0, NULL), 0);
    assert_int_equal(put(a, 0, 1), 0);
    assert_int_equal(zqcow2_inactivate(a, NULL), 0);
    assert_int_equal(zqcow2_activate(b, NULL), 0);
    assert_int_equal(put(b, 8 * UNIT, 1), 0);
    assert_int_equal(zqcow2_inactivate(b, NULL), 0);
    assert_int_equal(zqcow2_activate(a, NULL), 0);
    assert_int_equal(zqcow2_bitmap_ranges(a, "b", 0, range, &nr, NULL), 0);
    assert_int_equal(nr, 2);
    assert_int_equal(range[1].offset, 8 * UNIT);
    assert_int_equal(zqcow2_close(b), 0);
    assert_int_equal(zqcow2_close(a), 0);
}

static unsigned opened; /* other files, now */

static void note_close(void *self)
{
    (void)self;
    opened--;
}

/* A backing file of 0x5a and a data file, each as long as the device, in memory. */
static struct store others[2];

static int resolve(void *arg, const char *name, const char *format, uint32_t depth,
                   struct zqcow2_backend **be, struct zqcow2_error *err)
{
    struct store *s = &others[strcmp(name, "data") == 0];
    static struct zqcow2_backend_ops ops;

    (void)arg;
    (void)format;
    (void)depth;
    (void)err;
    ops = *store_be(s).ops;
    ops.close = note_close;
    opened++;
    return zqcow2_backend_new(&ops, store_be(s).self, NULL, be);
}

static struct zqcow2_image *open_chain(uint32_t flags)
{
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img;

    opt.flags = flags;
    opt.resolve = resolve;
    assert_int_equal(zqcow2_open(file(path, false), &opt, &img, NULL), 0);
    return img;
}

/* They are opened by each activation, and closed when the image is given up. */
static void other_files_go_along(bool data)
{
    struct zqcow2_create_options how = shape();
    struct zqcow2_image *a, *b;
    uint8_t buf[UNIT], want[UNIT];

    for (int i = 0; i < 2; i++)
        store_init(&others[i]);
    how.zone_size = how.conventional_zones = 0;
    memset(want, data ? 0 : 0x5a, UNIT);
    for (uint64_t at = 0; at < how.virtual_size; at += UNIT)
        store_put(&others[0], want, UNIT, at);
    how.resolve = resolve;
    how.data_file = data ? "data" : NULL;
    how.backing_name = data ? NULL : "below";
    how.backing_format = data ? NULL : "raw";
    create(&how);
    a = open_chain(ZQCOW2_OPEN_RDWR);
    assert_int_equal(opened, 1);
    b = open_chain(ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_INACTIVE);
    assert_int_equal(opened, 1);
    for (uint64_t i = 1; i < 5; i++) {
        struct zqcow2_image *now = i % 2 ? a : b, *next = i % 2 ? b : a;

        assert_int_equal(put(now, i * ZONE, i), 0);
        assert_int_equal(zqcow2_inactivate(now, NULL), 0);
        assert_int_equal(opened, 0);
        assert_int_equal(zqcow2_activate(next, NULL), 0);
        assert_int_equal(opened, 1);
        for (uint64_t j = 1; j <= i; j++)
            assert_int_equal(holds(next, j * ZONE, j), 1);
        assert_int_equal(zqcow2_read(next, buf, UNIT, 9 * ZONE), 0);
        assert_memory_equal(buf, want, UNIT);
    }
    assert_int_equal(zqcow2_close(b), 0);
    assert_int_equal(zqcow2_close(a), 0);
    assert_int_equal(opened, 0);
    for (int i = 0; i < 2; i++)
        store_free(&others[i]);
}

static void backing_file(void **state)
{
    (void)state;
    other_files_go_along(false);
}

static void data_file(void **state)
{
    (void)state;
    other_files_go_along(true);
}

/* ---- requests of a queue meanwhile ---- */

struct traffic {
    struct zqcow2_image *img;
    atomic_bool over;
    unsigned handed;
};

static void *hand_over(void *arg)
{
    struct traffic *t = arg;

    for (t->handed = 0; t->handed < 30; t->handed++) {
        if (zqcow2_inactivate(t->img, NULL) != 0 || zqcow2_activate(t->img, NULL) != 0)
            break;
    }
    t->over = true;
    return NULL;
}

/* Each request is done, or is refused as a whole; none is lost, and none hangs. */
static void queues_stay(void **state)
{
    struct zqcow2_create_options how = shape();
    unsigned done = 0, refused = 0;
    struct traffic t = {0};
    struct zqcow2_queue *q;
    uint64_t wp = 2 * ZONE;
    pthread_t other;

    (void)state;
    create(&how);
    t.img = open_as(ZQCOW2_OPEN_RDWR);
    assert_int_equal(zqcow2_queue_open(t.img, 4, &q), 0);
    assert_int_equal(pthread_create(&other, NULL, hand_over, &t), 0);
    while (!t.over && wp < ZONES * ZONE) {
        struct ticket *all[3];

        ticket_begin();
        all[0] = ticket(ZQCOW2_OP_WRITE, wp, UNIT, wp);
        all[1] = ticket(ZQCOW2_OP_READ, 0, UNIT, 0);
        all[2] = ticket(ZQCOW2_OP_FLUSH, 0, 0, 0);
        for (unsigned i = 0; i < 3; i++)
            assert_int_equal(submit(q, all[i]), 1);
        wait_all(q);
        for (unsigned i = 0; i < 3; i++)
            assert_true(all[i]->ret == 0 || (i < 2 && all[i]->ret == ZQCOW2_EINACTIVE));
        wp += all[0]->ret == 0 ? UNIT : 0;
        done += all[0]->ret == 0;
        refused += all[0]->ret != 0;
        for (unsigned i = 0; i < 3; i++)
            drop(all[i]);
    }
    pthread_join(other, NULL);
    assert_int_equal(t.handed, 30);
    printf("hand-over under a queue: %u times, %u writes done, %u refused\n", t.handed, done,
           refused);
    assert_int_equal(zqcow2_queue_close(q), 0);
    assert_int_equal(zqcow2_close(t.img), 0);
}

static bool fits(int rc)
{
    return rc == 0 || rc == ZQCOW2_EINACTIVE;
}

/* Calls that are no requests, in another thread: each sees the image as it was or as it is. */
static void other_calls_stay(void **state)
{
    struct zqcow2_create_options how = shape();
    struct zqcow2_io_limits limits = ZQCOW2_IO_LIMITS_INIT;
    struct traffic t = {0};
    unsigned calls = 0;
    pthread_t other;

    (void)state;
    create(&how);
    t.img = open_as(ZQCOW2_OPEN_RDWR);
    assert_int_equal(pthread_create(&other, NULL, hand_over, &t), 0);
    for (; !t.over; calls++) {
        struct zqcow2_snapshot snapshot = ZQCOW2_SNAPSHOT_INIT;
        uint64_t at = 0, since = 0, offs[ZONES];
        struct zqcow2_zone zones[ZONES];
        uint32_t nr = ZONES;
        int rc;

        snapshot.name = "s";
        assert_true(fits(zqcow2_get_io_limits(t.img, &limits)));
        rc = zqcow2_zone_find(t.img, &at, 0, zones, &nr);
        assert_true(rc == ZQCOW2_EINACTIVE || (rc == 0 && nr == ZONES && at == ZONES * ZONE));
        nr = ZONES;
        rc = zqcow2_zone_changes(t.img, &since, offs, &nr);
        assert_true(fits(rc) || rc == -EOVERFLOW);
        rc = zqcow2_bitmap_add(t.img, "b", 0, 0, NULL);
        assert_true(fits(rc) || rc == -EEXIST);
        rc = zqcow2_bitmap_remove(t.img, "b", NULL);
        assert_true(fits(rc) || rc == -ENOENT);
        rc = zqcow2_snapshot_take(t.img, &snapshot, NULL);
        assert_true(fits(rc) || rc == -EEXIST);
        rc = zqcow2_snapshot_delete(t.img, "s", NULL);
        assert_true(fits(rc) || rc == -ENOENT);
    }
    pthread_join(other, NULL);
    assert_int_equal(t.handed, 30);
    printf("hand-over under other calls: %u times, %u rounds of calls\n", t.handed, calls);
    assert_int_equal(zqcow2_close(t.img), 0);
}

/* To the program that takes the file back, any zone may have changed: that is an event. */
static void count_changes(void *arg, const struct zqcow2_event *event)
{
    *(unsigned *)arg += event->kind == ZQCOW2_EVENT_ZONES_CHANGED;
}

static void zones_have_changed(void **state)
{
    struct zqcow2_create_options how = shape();
    uint64_t since = 0, offs[ZONES];
    struct zqcow2_image *img;
    unsigned events = 0;
    uint32_t nr = ZONES;

    (void)state;
    create(&how);
    img = open_as(ZQCOW2_OPEN_RDWR);
    zqcow2_set_event_handler(img, count_changes, &events);
    assert_int_equal(zqcow2_zone_changes(img, &since, offs, &nr), 0);
    assert_int_equal(zqcow2_inactivate(img, NULL), 0);
    assert_int_equal(zqcow2_activate(img, NULL), 0);
    assert_int_equal(zqcow2_flush(img), 0);
    assert_int_equal(events, 1);
    nr = ZONES;
    assert_int_equal(zqcow2_zone_changes(img, &since, offs, &nr), -EOVERFLOW);
    nr = ZONES;
    assert_int_equal(zqcow2_zone_changes(img, &since, offs, &nr), 0);
    assert_int_equal(nr, 0);
    assert_int_equal(zqcow2_close(img), 0);
}

/* ---- how long it takes ---- */

static double now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e3 + (double)ts.tv_nsec / 1e6;
}

static void figures(void **state)
{
    struct zqcow2_create_options how = shape();
    double in = 1e9, out = 1e9;
    struct zqcow2_image *img;

    (void)state;
    how.zone_size = MiB(1);
    how.virtual_size = 4096 * MiB(1);
    how.cluster_size = 0;
    create(&how);
    img = open_as(ZQCOW2_OPEN_RDWR);
    for (uint32_t i = 2; i < 4096; i += 4)
        assert_int_equal(put(img, i * MiB(1), i), 0);
    for (int i = 0; i < 20; i++) {
        double t0 = now_ms(), t1;

        assert_int_equal(zqcow2_inactivate(img, NULL), 0);
        t1 = now_ms();
        assert_int_equal(zqcow2_activate(img, NULL), 0);
        if (i && t1 - t0 < out)
            out = t1 - t0;
        if (now_ms() - t1 < in)
            in = now_ms() - t1;
        assert_int_equal(holds(img, 2 * MiB(1), 2), 1);
    }
    printf("hand-over of 4096 zones: inactivate %.2f ms, activate %.2f ms (the best of 20)\n", out,
           in);
    assert_int_equal(zqcow2_close(img), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_at_a_time),    cmocka_unit_test(readers),
        cmocka_unit_test(another_image),    cmocka_unit_test(fails_at_the_end),
        cmocka_unit_test(bitmaps_go_along), cmocka_unit_test(backing_file),
        cmocka_unit_test(data_file),        cmocka_unit_test(queues_stay),
        cmocka_unit_test(other_calls_stay), cmocka_unit_test(zones_have_changed),
        cmocka_unit_test(figures),
    };

    rig_watch(300, "hand-over");
    return cmocka_run_group_tests(tests, setup, teardown);
}
