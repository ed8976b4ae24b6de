/* SPDX-License-Identifier: MIT */
/*
 * zqcow2 vhost-user against a front-end and a guest of the test's own: requests of every kind, both
 * kinds of images, rings at their ends, and drivers that know
 * less. ZQCOW2_TOOL names the command.
 */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include <zqcow2/backend.h>
#include <zqcow2/zqcow2.h>

#include "frontend.h"

/* ---- plain images ---- */

static void data_comes_back(void **state)
{
    struct front f;

    (void)state;
    front_begin(&f, front_plain, "", ALL);
    memset(front_data(&f), 0x5a, 8192);
    assert_int_equal(front_do(&f, 0, OUT, 16, 8192, 0), OK);
    memset(front_data(&f), 0, 8192);
    assert_int_equal(front_do(&f, 1, IN, 15, 0, 1024), OK);
    assert_true(front_all_are(front_data(&f), 0, 512) &&
                front_all_are(front_data(&f) + 512, 0x5a, 512));
    assert_int_equal(front_do(&f, 0, FLUSH, 0, 0, 0), OK);
    assert_int_equal(front_do(&f, 0, GET_ID, 0, 0, 20), OK);
    assert_memory_equal(front_data(&f), "i.qcow2\0\0\0\0\0\0\0\0\0\0\0\0\0", 20);
    front_finish(&f);
}

static void what_cannot_be_is_refused(void **state)
{
    static const struct {
        uint32_t type;
        uint64_t sector;
        uint32_t out, in;
        uint8_t status;
    } cases[] = {
        {IN, 16384, 0, 512, IOERR},
        {IN, 16383, 0, 1024, IOERR},
        {OUT, 16383, 1024, 0, IOERR},
        {IN, UINT64_MAX, 0, 512, IOERR},
        {OUT, UINT64_MAX / 2, 512, 0, IOERR},
        {IN, 0, 0, 511, IOERR},
        {OUT, 0, 100, 0, IOERR},
        {3, 0, 0, 0, UNSUPP},
        {10, 0, 0, 0, UNSUPP},
        {14, 0, 16, 0, UNSUPP},
        {APPEND, 0, 512, 0, UNSUPP},
        {REPORT, 0, 0, 4096, UNSUPP},
        {RESET_ALL, 0, 0, 0, UNSUPP},
        {0xffffffff, 0, 0, 0, UNSUPP},
        {DISCARD, 0, 15, 0, IOERR},
        {DISCARD, 0, 17 * 16, 0, IOERR},
        {DISCARD, 0, 0, 0, IOERR},
    };
    struct front f;

    (void)state;
    front_begin(&f, front_plain, "", ALL);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        memset(front_data(&f), 0, 4096);
        if (front_do(&f, 0, cases[i].type, cases[i].sector, cases[i].out, cases[i].in) !=
            cases[i].status)
            fail_msg("case %u", i);
    }
    front_finish(&f);
}

static void put_range(struct front *f, unsigned i, uint64_t sector, uint32_t n, uint32_t flags)
{
    front_put(front_data(f) + 16 * i, sector, 8);
    front_put(front_data(f) + 16 * i + 8, n, 4);
    front_put(front_data(f) + 16 * i + 12, flags, 4);
}

static void ranges_become_zeros(void **state)
{
    struct front f;

    (void)state;
    front_begin(&f, front_plain, "", ALL);
    memset(front_data(&f), 7, 32768);
    assert_int_equal(front_do(&f, 0, OUT, 0, 32768, 0), OK);
    put_range(&f, 0, 8, 8, 0);
    put_range(&f, 1, 32, 8, 0);
    assert_int_equal(front_do(&f, 0, DISCARD, 0, 32, 0), OK);
    put_range(&f, 0, 1, 1, 0);
    put_range(&f, 1, 48, 9, 1);
    assert_int_equal(front_do(&f, 0, ZEROES, 0, 32, 0), OK);
    /* One that cannot be costs the others, too. */
    put_range(&f, 0, 24, 8, 0);
    put_range(&f, 1, 16380, 8, 0);
    assert_int_equal(front_do(&f, 0, ZEROES, 0, 32, 0), IOERR);
    put_range(&f, 0, 24, 8, 1);
    assert_int_equal(front_do(&f, 0, DISCARD, 0, 16, 0), UNSUPP);
    put_range(&f, 0, 24, 8, 2);
    assert_int_equal(front_do(&f, 0, ZEROES, 0, 16, 0), UNSUPP);
    assert_int_equal(front_do(&f, 0, IN, 0, 0, 32768), OK);
    for (unsigned s = 0; s < 64; s++) {
        bool zero = s == 1 || (s >= 8 && s < 16) || (s >= 32 && s < 40) || (s >= 48 && s < 57);

        if (!front_all_are(front_data(&f) + 512 * s, zero ? 0 : 7, 512))
            fail_msg("sector %u", s);
    }
    front_finish(&f);
}

/* Has the cluster a place in the file, as the served image has it on disk? */
static bool has_place(const struct front *f, uint64_t off)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_extent e = ZQCOW2_EXTENT_INIT;
    struct zqcow2_image *img;
    struct zqcow2_backend *be;

    o.flags = ZQCOW2_OPEN_NOLOCK;
    assert_int_equal(zqcow2_file_open(f->image, 0, NULL, &be), 0);
    assert_int_equal(zqcow2_open(be, &o, &img, NULL), 0);
    assert_int_equal(zqcow2_block_status(img, off, 512, &e), 0);
    assert_int_equal(e.kind == ZQCOW2_BLOCK_DATA, 0);
    assert_int_equal(zqcow2_close(img), 0);
    return e.host != UINT64_MAX;
}

/* An image of 8 MiB with clusters of 4 KiB: 1 MiB of L2 tables maps 512 MiB. */
static void config_has_the_limits_of_the_image(void **state)
{
    uint8_t config[12 + 96] = {0};
    const uint8_t *c = config + 12;
    struct front f;

    (void)state;
    front_begin(&f, front_plain, "", ALL);
    front_put(config + 4, 96, 4);
    front_send(&f, 24, 0, config, sizeof(config), NULL, 0);
    assert_int_equal(front_receive(&f, config, sizeof(config), NULL), sizeof(config));
    assert_int_equal(front_get(c + 20, 4), 512);     /* blk_size */
    assert_int_equal(c[24], 3);                      /* physical_block_exp: 4096 bytes */
    assert_int_equal(front_get(c + 26, 2), 8);       /* min_io_size */
    assert_int_equal(front_get(c + 28, 4), 8);       /* opt_io_size: a cluster */
    assert_int_equal(front_get(c + 36, 4), 1048576); /* max_discard_sectors */
    assert_int_equal(front_get(c + 44, 4), 8);       /* discard_sector_alignment */
    assert_int_equal(front_get(c + 48, 4), 1048576); /* max_write_zeroes_sectors */
    assert_int_equal(c[56], 1);                      /* write_zeroes_may_unmap */
    front_finish(&f);
}

/* Of the ranges of one request, the guest allows to unmap the second. */
static void space_is_kept_unless_the_guest_allows(void **state)
{
    struct front f;

    (void)state;
    front_begin(&f, front_plain, "", ALL);
    memset(front_data(&f), 7, 32768);
    assert_int_equal(front_do(&f, 0, OUT, 0, 32768, 0), OK);
    put_range(&f, 0, 8, 8, 0);
    put_range(&f, 1, 24, 8, 1);
    assert_int_equal(front_do(&f, 0, ZEROES, 0, 32, 0), OK);
    assert_int_equal(front_do(&f, 0, FLUSH, 0, 0, 0), OK);
    assert_true(has_place(&f, 4096));
    assert_false(has_place(&f, 3 * 4096));
    front_finish(&f);
}

/* Header, data and status in pieces of any length, direct and by a table. */
static void framing_is_free(void **state)
{
    struct front f;
    uint32_t written;

    (void)state;
    front_begin(&f, front_plain, "", ALL);
    for (unsigned i = 0; i < 2; i++) {
        struct part write[] = {{DATA_AT, 5, false},
                               {DATA_AT + 5, 11 + 500, false},
                               {DATA_AT + 516, 12, false},
                               {DATA_AT + 528, 512, false},
                               {DATA_AT + 2000, 1, true}};
        struct part read[] = {{DATA_AT, 16, false},
                              {DATA_AT + 3000, 1, true},
                              {DATA_AT + 3001, 1000, true},
                              {DATA_AT + 4001, 24, true}};

        memset(f.memory + DATA_AT, 0, 8192);
        front_put(f.memory + DATA_AT, OUT, 4);
        front_put(f.memory + DATA_AT + 8, 40 + i, 8);
        for (unsigned b = 0; b < 1024; b++)
            f.memory[DATA_AT + 16 + b] = (uint8_t)(b * 7 + i);
        front_post(&f, 0, 3, write, 5, i);
        assert_int_equal(front_used(&f, 0, &written, LONG_MS), 3);
        assert_int_equal(f.memory[DATA_AT + 2000], OK);
        front_put(f.memory + DATA_AT, IN, 4);
        front_post(&f, 0, 9, read, 4, i);
        assert_int_equal(front_used(&f, 0, &written, LONG_MS), 9);
        assert_int_equal(written, 1025);
        for (unsigned b = 0; b < 1024; b++)
            assert_int_equal(f.memory[DATA_AT + 3000 + b], (uint8_t)(b * 7 + i));
        assert_int_equal(f.memory[DATA_AT + 4024], OK);
    }
    front_finish(&f);
}

/* The index of a ring has 16 bits. */
static void indexes_wrap(void **state)
{
    struct front f;

    (void)state;
    for (unsigned events = 0; events < 2; events++) {
        front_begin(&f, front_plain, "", ALL & ~(events ? 0 : 1ull << F_EVENT));
        front_stop_ring(&f, 0);
        front_put(f.memory + 0x4000 + 0x1002, 65500, 2);
        front_put(f.memory + 0x4000 + 0x2002, 65500, 2);
        front_start_ring(&f, 0, 65500);
        for (unsigned i = 0; i < 200; i++) {
            front_data(&f)[0] = (uint8_t)i;
            assert_int_equal(front_do(&f, 0, OUT, i, 512, 0), OK);
        }
        for (unsigned i = 0; i < 200; i++) {
            assert_int_equal(front_do(&f, 0, IN, i, 0, 512), OK);
            assert_int_equal(front_data(&f)[0], i);
        }
        front_finish(&f);
    }
}

/* The guest is interrupted for what it asked to be, and only then. */
static void calls_come_when_wanted(void **state)
{
    struct front f;
    struct pollfd p = {.events = POLLIN};
    uint64_t n;

    (void)state;
    front_begin(&f, front_plain, "", ALL & ~(1ull << F_EVENT));
    p.fd = f.ring[0].call;
    assert_int_equal(front_do(&f, 0, FLUSH, 0, 0, 0), OK);
    assert_int_equal(poll(&p, 1, LONG_MS), 1);
    assert_int_equal(read(p.fd, &n, sizeof(n)), sizeof(n));
    front_put(f.memory + 0x4000 + 0x1000, 1, 2); /* none, please */
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(front_do(&f, 0, FLUSH, 0, 0, 0), OK);
    front_stop_ring(&f, 1); /* the server has gone once around since */
    assert_int_equal(poll(&p, 1, 0), 0);
    front_put(f.memory + 0x4000 + 0x1000, 0, 2);
    assert_int_equal(front_do(&f, 0, FLUSH, 0, 0, 0), OK);
    assert_int_equal(poll(&p, 1, LONG_MS), 1);
    front_finish(&f);
}

/* ---- zones ---- */

static void zones_are_reported(void **state)
{
    struct front f;
    uint8_t config[12 + 96] = {0};

    (void)state;
    front_begin(&f, front_zoned, "", ALL);
    front_put(config + 4, 96, 4);
    front_send(&f, 24, 0, config, sizeof(config), NULL, 0);
    assert_int_equal(front_receive(&f, config, sizeof(config), NULL), sizeof(config));
    assert_int_equal(front_get(config + 12, 8), 16384);
    assert_int_equal(front_get(config + 12 + 34, 2), RINGS);
    assert_int_equal(front_get(config + 12 + 72, 4), 2048);
    assert_int_equal(front_get(config + 12 + 76, 4), 2);
    assert_int_equal(front_get(config + 12 + 80, 4), 3);
    assert_int_equal(front_get(config + 12 + 88, 4), 512);
    assert_int_equal(config[12 + 92], 1);
    assert_int_equal(front_do(&f, 0, REPORT, 0, 0, 64 + 64 * 20), OK);
    assert_int_equal(front_get(front_data(&f), 8), 8);
    for (unsigned i = 0; i < 8; i++) {
        const uint8_t *z = front_data(&f) + 64 + 64 * i;

        assert_int_equal(front_get(z, 8), i ? 1536 : 2048);
        assert_int_equal(front_get(z + 8, 8), 2048 * i);
        assert_int_equal(z[24], i ? 2 : 1);
        assert_int_equal(z[25], i ? 1 : 0);
    }
    assert_true(front_all_are(front_data(&f) + 64 + 64 * 8, 0, 64 * 12));
    assert_int_equal(front_do(&f, 0, REPORT, 2049, 0, 64 + 64 + 63), OK);
    assert_int_equal(front_get(front_data(&f), 8), 1);
    assert_int_equal(front_do(&f, 0, REPORT, 0, 0, 63), INVALID);
    assert_int_equal(front_do(&f, 0, REPORT, 16384, 0, 4096), INVALID);
    front_finish(&f);
}

static void zones_change_state(void **state)
{
    struct front f;

    (void)state;
    front_begin(&f, front_zoned, "", ALL);
    assert_int_equal(front_do(&f, 0, OUT, 2048, 4096, 0), OK);
    front_expect_zone(&f, 2048, 2056, 2);
    assert_int_equal(front_do(&f, 0, OUT, 2048, 512, 0), UNALIGNED);
    assert_int_equal(front_do(&f, 0, OPEN, 2048, 0, 0), OK);
    front_expect_zone(&f, 2048, 2056, 3);
    assert_int_equal(front_do(&f, 0, OPEN, 4096, 0, 0), OK);
    assert_int_equal(front_do(&f, 0, OPEN, 6144, 0, 0), OPEN_LIMIT);
    assert_int_equal(front_do(&f, 0, CLOSE, 2048, 0, 0), OK);
    front_expect_zone(&f, 2048, 2056, 4);
    assert_int_equal(front_do(&f, 0, OUT, 6144, 512, 0), OK);
    assert_int_equal(front_do(&f, 0, OUT, 8192, 512, 0), ACTIVE_LIMIT);
    assert_int_equal(front_do(&f, 0, FINISH, 6144, 0, 0), OK);
    front_expect_zone(&f, 6144, 8192, 14);
    assert_int_equal(front_do(&f, 0, OUT, 6145, 512, 0), INVALID);
    assert_int_equal(front_do(&f, 0, RESET, 6144, 0, 0), OK);
    front_expect_zone(&f, 6144, 6144, 1);
    assert_int_equal(front_do(&f, 0, RESET, 6145, 0, 0), INVALID);
    assert_int_equal(front_do(&f, 0, RESET, 0, 0, 0), INVALID);
    assert_int_equal(front_do(&f, 0, RESET, 1ull << 60, 0, 0), INVALID);
    assert_int_equal(front_do(&f, 0, RESET_ALL, 77, 0, 0), OK);
    front_expect_zone(&f, 2048, 2048, 1);
    assert_int_equal(front_do(&f, 0, ZEROES, 0, 16, 0), UNSUPP);
    front_finish(&f);
}

/* 9 bytes for the answer as the standard has it, 16 as Linux does, and both in pieces. */
static void appends_say_where(void **state)
{
    static const uint32_t rooms[] = {9, 16, 9, 16};
    struct front f;

    (void)state;
    front_begin(&f, front_zoned, "", ALL);
    for (unsigned i = 0; i < 4; i++) {
        uint32_t room = rooms[i], first = i < 2 ? room : 3, answer = DATA_AT + 0x800;
        struct part p[] = {{DATA_AT, 16, false},
                           {DATA_AT + 0x1000, 1024, false},
                           {answer, first, true},
                           {answer + first, room - first, true}};

        front_put(f.memory + DATA_AT, APPEND, 8);
        front_put(f.memory + DATA_AT + 8, 2048, 8);
        memset(f.memory + answer, 0xee, 16);
        memset(front_data(&f), (int)i + 1, 1024);
        front_post(&f, 0, 0, p, i < 2 ? 3 : 4, i & 1);
        assert_int_equal(front_used(&f, 0, NULL, LONG_MS), 0);
        assert_int_equal(f.memory[answer + room - 1], OK);
        assert_int_equal(front_get(f.memory + answer, 8), 2048 + 2 * i);
    }
    assert_int_equal(front_do(&f, 0, IN, 2048, 0, 4096), OK);
    for (unsigned i = 0; i < 4; i++)
        assert_true(front_all_are(front_data(&f) + 1024 * i, (uint8_t)(i + 1), 1024));
    front_finish(&f);
}

/* Firmware knows of no zones: it reads, and everything about zones is unknown to it. */
static void a_driver_without_zones_reads(void **state)
{
    struct front f;

    (void)state;
    front_begin(&f, front_zoned, "", 1ull << F_FLUSH);
    assert_int_equal(front_do(&f, 0, IN, 2048, 0, 512), OK);
    assert_int_equal(front_do(&f, 0, OUT, 0, 512, 0), OK);
    assert_int_equal(front_do(&f, 0, OUT, 2048, 512, 0), IOERR);
    assert_int_equal(front_do(&f, 0, OUT, 2047, 1024, 0), IOERR);
    assert_int_equal(front_do(&f, 0, REPORT, 0, 0, 4096), UNSUPP);
    assert_int_equal(front_do(&f, 0, RESET_ALL, 0, 0, 0), UNSUPP);
    for (unsigned i = 0; i < RINGS; i++)
        front_stop_ring(&f, i);
    uint64_t features = f.offered & (ALL | 1ull << F_PROTOCOL | 1ull << F_VERSION_1);
    assert_int_equal(front_acked(&f, 2, &features, 8, NULL, 0), 0);
    memset(f.memory + 0x4000, 0, 0x8000);
    front_start_ring(&f, 0, 0);
    assert_int_equal(front_do(&f, 0, OUT, 2048, 512, 0), OK);
    front_expect_zone(&f, 2048, 2049, 2);
    front_finish(&f);
}

static void a_read_only_disk_is_one(void **state)
{
    struct front f;

    (void)state;
    front_begin(&f, front_zoned, "--read-only", ALL);
    assert_true(f.offered >> 5 & 1);
    assert_int_equal(front_do(&f, 0, OUT, 2048, 512, 0), IOERR);
    assert_int_equal(front_do(&f, 0, RESET, 2048, 0, 0), IOERR);
    assert_int_equal(front_do(&f, 0, IN, 2048, 0, 512), OK);
    front_expect_zone(&f, 2048, 2048, 1);
    front_finish(&f);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FILTER "0" /* sanitizers make calls of their own */
#else
#define FILTER "2"
#endif

/* A field of /proc/PID/task/TID/status. */
static void expect_field(pid_t pid, const char *tid, const char *field, const char *wanted)
{
    char path[128], line[256];
    size_t n = strlen(field);
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%ld/task/%s/status", (long)pid, tid);
    f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof(line), f)) {
        if (strncmp(line, field, n))
            continue;
        line[strcspn(line, "\n")] = '\0';
        assert_string_equal(line + n + 1, wanted);
        fclose(f);
        return;
    }
    fail_msg("%s has no %s", path, field);
}

/* Of each backend and with a control socket: threads of all kinds. */
static void every_thread_is_confined(void **state)
{
    static const char *const options[] = {"", "--backend=threads", "--backend=uring"};
    struct zqcow2_backend *be;
    int rc = zqcow2_uring_open("/dev/null", 0, NULL, &be);

    (void)state;
    if (rc >= 0)
        zqcow2_backend_close(be);
    for (unsigned i = 0; i < (rc == -ENOSYS ? 2u : 3u); i++) {
        struct front f;
        struct dirent *e;
        char path[64];
        unsigned threads = 0;
        DIR *d;

        front_begin(&f, front_plain, options[i], ALL);
        assert_int_equal(front_do(&f, 0, IN, 0, 0, 512), OK);
        snprintf(path, sizeof(path), "/proc/%ld/task", (long)f.server);
        d = opendir(path);
        assert_non_null(d);
        while ((e = readdir(d))) {
            if (e->d_name[0] == '.')
                continue;
            expect_field(f.server, e->d_name, "Seccomp:", FILTER);
            threads++;
            if (i == 1 && FILTER[0] == '0') /* without the filter its threads stay as they were */
                continue;
            expect_field(f.server, e->d_name, "NoNewPrivs:", "1");
            if (i != 1)
                expect_field(f.server, e->d_name, "CapEff:", "0000000000000000");
        }
        closedir(d);
        assert_true(threads > RINGS);
        assert_int_equal(front_do(&f, 0, OUT, 0, 512, 0), OK);
        front_finish(&f);
    }
}

static void blocks_of_4096(void **state)
{
    struct front f;

    (void)state;
    front_begin(&f, front_zoned, "--block-size=4096", ALL);
    assert_int_equal(front_do(&f, 0, OUT, 2048, 4096, 0), OK);
    assert_int_equal(front_do(&f, 0, OUT, 2056, 512, 0), UNALIGNED);
    assert_int_equal(front_do(&f, 0, IN, 2048, 0, 4096), OK);
    front_finish(&f);
}

/* ---- many requests, against a model ---- */

static uint32_t draw(uint64_t *rng, uint32_t n)
{
    *rng = *rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*rng >> 33) % n;
}

#define ROUNDS 400u
#define BATCH  10u
#define AREA   64u /* sectors of each request of a batch, so that none meets another */

static void many_at_once(const char *options)
{
    static uint8_t want[BATCH * AREA * 512];
    struct front f;
    uint64_t rng = 5;

    memset(want, 0, sizeof(want));
    front_begin(&f, front_plain, options, ALL);
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint32_t len[BATCH], first[BATCH];
        bool write[BATCH];

        for (unsigned i = 0; i < BATCH; i++) {
            uint32_t at = DATA_AT + 0x100 * i, data = DATA_AT + 0x1000 + 0x8000 * i;
            struct part p[] = {{at, 16, false}, {data, 0, false}, {at + 64, 1, true}};

            write[i] = draw(&rng, 2);
            first[i] = i * AREA + draw(&rng, AREA);
            len[i] = 512 * (1 + draw(&rng, (i + 1) * AREA - first[i]));
            p[1].len = len[i];
            p[1].writable = !write[i];
            front_put(f.memory + at, write[i], 8);
            front_put(f.memory + at + 8, first[i], 8);
            f.memory[at + 64] = 0xee;
            memset(f.memory + data, write[i] ? (int)draw(&rng, 256) : 0xbb, len[i]);
            if (write[i])
                memcpy(want + first[i] * 512, f.memory + data, len[i]);
            front_post(&f, i % RINGS, (uint16_t)(i / RINGS * 3), p, 3, false);
        }
        for (unsigned i = 0; i < BATCH; i++)
            assert_true(front_used(&f, i % RINGS, NULL, LONG_MS) >= 0);
        for (unsigned i = 0; i < BATCH; i++) {
            assert_int_equal(f.memory[DATA_AT + 0x100 * i + 64], OK);
            if (!write[i])
                assert_memory_equal(f.memory + DATA_AT + 0x1000 + 0x8000 * i, want + first[i] * 512,
                                    len[i]);
        }
    }
    front_finish(&f);
}

static void many_requests(void **state)
{
    (void)state;
    many_at_once("");
    many_at_once("--backend=threads");
    printf("vhost-user: %u requests, 0 differ\n", 2 * ROUNDS * BATCH);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_comes_back),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(ranges_become_zeros),
        cmocka_unit_test(config_has_the_limits_of_the_image),
        cmocka_unit_test(space_is_kept_unless_the_guest_allows),
        cmocka_unit_test(framing_is_free),
        cmocka_unit_test(indexes_wrap),
        cmocka_unit_test(calls_come_when_wanted),
        cmocka_unit_test(zones_are_reported),
        cmocka_unit_test(zones_change_state),
        cmocka_unit_test(appends_say_where),
        cmocka_unit_test(a_driver_without_zones_reads),
        cmocka_unit_test(a_read_only_disk_is_one),
        cmocka_unit_test(every_thread_is_confined),
        cmocka_unit_test(blocks_of_4096),
        cmocka_unit_test(many_requests),
    };

    if (!getenv("ZQCOW2_TOOL")) {
        puts("1..0 # skip ZQCOW2_TOOL is not set");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
