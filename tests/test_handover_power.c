/* SPDX-License-Identifier: MIT */
/*
 * Hand-over between two processes that write all the time, and where power or the backend fails
 * meanwhile.
 *
 * ZQ_HANDOVERS: so many between processes.
 */
#include "handover.h"

/* ---- two processes ---- */

/* Shared: how many units of each zone were acknowledged. Their content follows from the place. */
struct log {
    atomic_uint acked[ZONES];
    atomic_uint writes;
};

static int pass(int from, int to)
{
    char c;

    if (from >= 0 && read(from, &c, 1) != 1)
        return -1;
    return to >= 0 && write(to, "x", 1) != 1 ? -1 : 0;
}

/* Some writes of a turn, each at the write pointer that both know. False: all zones are full. */
static int write_some(struct zqcow2_image *img, struct log *log, uint64_t *rng)
{
    for (unsigned n = 1 + (unsigned)cuts_draw(rng, 12); n--;) {
        unsigned zone = 2 + (unsigned)cuts_draw(rng, ZONES - 2);
        unsigned unit = log->acked[zone];
        uint64_t at = zone * ZONE + (uint64_t)unit * UNIT;
        int rc;

        if (unit == ZONE / UNIT) {
            rc = zqcow2_zone_reset(img, zone * ZONE, ZONE, 0);
            log->acked[zone] = 0;
        } else {
            rc = put(img, at, at);
            log->acked[zone] += rc == 0;
        }
        log->writes++;
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int read_all(struct zqcow2_image *img, const struct log *log)
{
    for (unsigned zone = 2; zone < ZONES; zone++) {
        struct zqcow2_zone z;
        uint32_t nr = 1;

        if (zqcow2_zone_report(img, zone * ZONE, &z, &nr) < 0)
            return -1;
        if (log->acked[zone] < ZONE / UNIT &&
            z.write_pointer != zone * ZONE + log->acked[zone] * UNIT)
            return -2;
        for (unsigned unit = 0; unit < log->acked[zone]; unit++) {
            uint64_t at = zone * ZONE + (uint64_t)unit * UNIT;

            if (holds(img, at, at) != 1)
                return -3;
        }
    }
    return 0;
}

/* 0, or a number that says what was wrong. Each takes the file in turn, and gives it up. */
static int take_turns(struct log *log, int from, int to, unsigned turns, bool first)
{
    struct zqcow2_image *img =
        open_as(ZQCOW2_OPEN_RDWR | (first ? 0u : (unsigned)ZQCOW2_OPEN_INACTIVE));
    uint64_t rng = first ? 1 : 2;

    for (unsigned i = 0; i < turns; i++) {
        if ((i || !first) && pass(from, -1) < 0)
            return 1;
        if ((i || !first) && zqcow2_activate(img, NULL) < 0)
            return 2;
        if (i % 16 == 0 && read_all(img, log) < 0)
            return 3;
        if (write_some(img, log, &rng) < 0)
            return 4;
        if (zqcow2_inactivate(img, NULL) < 0)
            return 5;
        if (pass(-1, to) < 0 && i + 1 < turns)
            return 6;
    }
    return zqcow2_close(img) == 0 ? 0 : 7;
}

static void two_processes(void **state)
{
    unsigned turns = getenv("ZQ_HANDOVERS") ? (unsigned)atoi(getenv("ZQ_HANDOVERS")) / 2 : 50;
    struct zqcow2_create_options how = shape();
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    int there[2], back[2], status;
    struct log *log;
    pid_t pid;

    (void)state;
    create(&how);
    log = mmap(NULL, sizeof(*log), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(log != MAP_FAILED && pipe(there) == 0 && pipe(back) == 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(take_turns(log, there[0], back[1], turns, false));
    assert_int_equal(take_turns(log, back[0], there[1], turns, true), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    img = open_as(ZQCOW2_OPEN_RDWR);
    assert_int_equal(read_all(img, log), 0);
    assert_int_equal(zqcow2_close(img), 0);
    be = file(path, false);
    assert_int_equal(zqcow2_check(be, NULL, &res, NULL), 0);
    assert_int_equal(res.corruptions + res.leaked_clusters, 0);
    zqcow2_backend_close(be);
    printf("hand-over between processes: %u times, %u writes, 0 lost\n", 2 * turns - 1,
           (unsigned)log->writes);
    for (int i = 0; i < 2; i++) {
        close(there[i]);
        close(back[i]);
    }
    munmap(log, sizeof(*log));
}

/* ---- power ---- */

#define STEPS 12u

/* What was acknowledged, and durable by a hand-over, at a position of the disk. */
struct power {
    struct zqcow2_simdisk *disk;
    struct {
        uint64_t position;
        unsigned units;
    } step[STEPS];
    unsigned steps;
    uint64_t judged;
};

static uint64_t position(struct zqcow2_simdisk *disk)
{
    struct zqcow2_simdisk_counters c = ZQCOW2_SIMDISK_COUNTERS_INIT;

    assert_int_equal(zqcow2_simdisk_get_counters(disk, &c), 0);
    return c.position;
}

static void judge(void *arg, uint64_t cut, uint64_t k, struct zqcow2_simdisk *image)
{
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct power *p = arg;
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    unsigned sure = 0;

    (void)k;
    for (unsigned i = 0; i < p->steps && p->step[i].position <= cut; i++)
        sure = p->step[i].units;
    opt.flags = ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_INACTIVE;
    assert_int_equal(zqcow2_simdisk_backend(image, &be), 0);
    assert_int_equal(zqcow2_open(be, &opt, &img, NULL), 0);
    assert_int_equal(zqcow2_activate(img, NULL), 0);
    for (unsigned i = 0; i < sure; i++)
        assert_int_equal(holds(img, 2 * ZONE + (uint64_t)i * UNIT, i), 1);
    assert_int_equal(zqcow2_close(img), 0);
    p->judged++;
}

static void power_is_cut(void **state)
{
    struct zqcow2_create_options how = shape();
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct power p = {0};
    struct zqcow2_image *img[2];
    struct zqcow2_backend *be;
    uint64_t rng = 5;
    unsigned units = 0;
    const struct cuts c = {.states = 6, .once = true, .rng = &rng, .judge = judge, .arg = &p};

    (void)state;
    assert_int_equal(zqcow2_simdisk_new(NULL, &p.disk), 0);
    assert_int_equal(zqcow2_simdisk_backend(p.disk, &be), 0);
    assert_int_equal(zqcow2_create(be, &how, NULL), 0);
    zqcow2_backend_close(be);
    opt.flags = ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_INACTIVE;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(zqcow2_simdisk_backend(p.disk, &be), 0);
        assert_int_equal(zqcow2_open(be, &opt, &img[i], NULL), 0);
    }
    assert_int_equal(zqcow2_simdisk_record(p.disk), 0);
    for (; p.steps < STEPS; p.steps++) {
        struct zqcow2_image *owner = img[p.steps % 2];

        assert_int_equal(zqcow2_activate(owner, NULL), 0);
        for (unsigned n = 1 + p.steps % 3; n--; units++)
            assert_int_equal(put(owner, 2 * ZONE + (uint64_t)units * UNIT, units), 0);
        assert_int_equal(put(owner, p.steps * UNIT, 1), 0);
        assert_int_equal(zqcow2_inactivate(owner, NULL), 0);
        p.step[p.steps].position = position(p.disk);
        p.step[p.steps].units = units;
    }
    assert_int_equal(cuts_judge_all(&c, p.disk), 0);
    printf("power cut during hand-over: %u states, 0 lost\n", (unsigned)p.judged);
    assert_int_equal(zqcow2_close(img[0]), 0);
    assert_int_equal(zqcow2_close(img[1]), 0);
    zqcow2_simdisk_free(p.disk);
}

/* ---- errors ---- */

/*
 * An error of each call of the backend in turn. One of inactivate leaves it active, and dead at
 * worst; one of activate leaves it inactive, unlocked, and able to do it again.
 */
static bool fails_at(uint64_t nth, bool leaving)
{
    struct zqcow2_simdisk_fault fault = ZQCOW2_SIMDISK_FAULT_INIT;
    struct zqcow2_simdisk_counters before = ZQCOW2_SIMDISK_COUNTERS_INIT;
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_create_options how = shape();
    struct zqcow2_simdisk *disk;
    struct zqcow2_image *a, *b;
    struct zqcow2_backend *be;
    int rc;

    assert_int_equal(zqcow2_simdisk_new(NULL, &disk), 0);
    assert_int_equal(zqcow2_simdisk_backend(disk, &be), 0);
    assert_int_equal(zqcow2_create(be, &how, NULL), 0);
    opt.flags = ZQCOW2_OPEN_RDWR;
    assert_int_equal(zqcow2_open(be, &opt, &a, NULL), 0);
    assert_int_equal(put(a, 2 * ZONE, 7), 0);
    assert_int_equal(zqcow2_flush(a), 0);
    assert_int_equal(put(a, 2 * ZONE + UNIT, 8), 0);
    if (!leaving)
        assert_int_equal(zqcow2_inactivate(a, NULL), 0);
    fault.nth = nth;
    fault.kinds = 0x3f; /* all */
    fault.error = -EIO;
    assert_int_equal(zqcow2_simdisk_set_fault(disk, &fault), 0);
    rc = leaving ? zqcow2_inactivate(a, NULL) : zqcow2_activate(a, NULL);
    assert_int_equal(zqcow2_simdisk_set_fault(disk, NULL), 0);
    assert_int_equal(zqcow2_simdisk_get_counters(disk, &before), 0);
    if (rc == 0 && before.faults == 0) {
        assert_int_equal(zqcow2_close(a), 0);
        zqcow2_simdisk_free(disk);
        return false;
    }
    opt.flags |= ZQCOW2_OPEN_INACTIVE;
    assert_int_equal(zqcow2_simdisk_backend(disk, &be), 0);
    assert_int_equal(zqcow2_open(be, &opt, &b, NULL), 0);
    if (leaving && rc < 0) {
        assert_int_equal(zqcow2_activate(b, NULL), -EAGAIN); /* it has kept the lock */
        assert_int_equal(holds(a, 2 * ZONE, 7), 1);
        assert_int_equal(put(a, 3 * ZONE, 9), ZQCOW2_EDEAD);
        (void)zqcow2_close(a);
        a = NULL;
    } else if (rc < 0) {
        assert_int_equal(zqcow2_read(a, &(uint8_t[UNIT]){0}, UNIT, 0), ZQCOW2_EINACTIVE);
        assert_int_equal(zqcow2_activate(a, NULL), 0);
        assert_int_equal(holds(a, 2 * ZONE + UNIT, 8), 1);
    }
    if (a)
        assert_int_equal(zqcow2_inactivate(a, NULL), 0);
    assert_int_equal(zqcow2_activate(b, NULL), 0);
    assert_int_equal(holds(b, 2 * ZONE, 7), 1);
    assert_int_equal(zqcow2_close(b), 0);
    if (a)
        assert_int_equal(zqcow2_close(a), 0);
    zqcow2_simdisk_free(disk);
    return true;
}

static void the_backend_fails(void **state)
{
    uint64_t out = 1, in = 1;

    (void)state;
    while (fails_at(out, true))
        out++;
    while (fails_at(in, false))
        in++;
    printf("hand-over with errors: %u of inactivate, %u of activate\n", (unsigned)out - 1,
           (unsigned)in - 1);
    assert_true(out > 5 && in > 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_processes),
        cmocka_unit_test(power_is_cut),
        cmocka_unit_test(the_backend_fails),
    };

    rig_watch(300, "hand-over, disturbed");
    return cmocka_run_group_tests(tests, setup, teardown);
}
