/* SPDX-License-Identifier: MIT */
/* Threads that write compressed clusters compress them at the same time. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <cmocka.h>
#include <zqcow2/faults.h>
#include <zqcow2/zqcow2.h>

#define CLUSTER     4096u
#define THREADS     4u
#define CODEC_BYTES (100u << 10) /* zlib asks for more; else no request of one cluster does */
#define PATIENCE    20           /* seconds; only a test that fails waits so long */

/* The first thread in the codec waits there for another one. */
struct meeting {
    pthread_mutex_t lock;
    pthread_cond_t came;
    pthread_t first;
    bool armed, met, missed;
};

static void meet(struct meeting *m)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE;
    pthread_mutex_lock(&m->lock);
    if (m->armed) {
        m->first = pthread_self();
        m->armed = false;
        while (!m->met && !m->missed)
            m->missed = pthread_cond_timedwait(&m->came, &m->lock, &until) != 0;
    } else if (!pthread_equal(m->first, pthread_self())) {
        m->met = true;
        pthread_cond_signal(&m->came);
    }
    pthread_mutex_unlock(&m->lock);
}

static void *alloc_and_meet(void *ctx, size_t align, size_t size)
{
    if (size >= CODEC_BYTES)
        meet(ctx);
    return aligned_alloc(align, (size + align - 1) / align * align);
}

static void plain_free(void *ctx, void *ptr, size_t size)
{
    (void)ctx;
    (void)size;
    free(ptr);
}

struct writer {
    struct zqcow2_image *img;
    uint64_t off;
    int rc;
    pthread_t thread;
};

static void *write_one(void *arg)
{
    static const char text[CLUSTER] = "text";
    struct writer *w = arg;

    w->rc = zqcow2_write(w->img, text, CLUSTER, w->off, ZQCOW2_COMPRESS);
    return NULL;
}

static struct zqcow2_faults *make(struct zqcow2_backend **be)
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_faults_rule slow = ZQCOW2_FAULTS_RULE_INIT;
    struct zqcow2_backend *inner;
    struct zqcow2_faults *f;

    c.virtual_size = 1 << 20;
    c.cluster_size = CLUSTER;
    slow.kinds = 1u << ZQCOW2_IO_WRITE;
    slow.delay_min = slow.delay_max = 300000;
    assert_int_equal(zqcow2_mem_open(0, NULL, &inner), 0);
    assert_int_equal(zqcow2_faults_wrap(inner, NULL, &f), 0);
    assert_int_equal(zqcow2_faults_backend(f, be), 0);
    assert_int_equal(zqcow2_create(*be, &c, NULL), 0);
    assert_int_equal(zqcow2_faults_add_rule(f, &slow), 0);
    return f;
}

/* All wait for the in-use mark, whose write takes long. The thread that wrote it finds all their
 * work. */
static void woken_by_one(void **state)
{
    struct meeting m = {.lock = PTHREAD_MUTEX_INITIALIZER, .came = PTHREAD_COND_INITIALIZER};
    struct zqcow2_hooks hooks = ZQCOW2_HOOKS_INIT;
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;
    struct zqcow2_faults *f = make(&be);
    struct zqcow2_image *img;
    struct writer w[THREADS];

    (void)state;
    hooks.ctx = &m;
    hooks.alloc = alloc_and_meet;
    hooks.free = plain_free;
    o.flags = ZQCOW2_OPEN_RDWR;
    o.hooks = &hooks;
    m.first = pthread_self();
    assert_int_equal(zqcow2_open(be, &o, &img, NULL), 0);
    m.armed = true;
    for (unsigned i = 0; i < THREADS; i++) {
        w[i] = (struct writer){.img = img, .off = (uint64_t)i * CLUSTER};
        assert_int_equal(pthread_create(&w[i].thread, NULL, write_one, &w[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(w[i].thread, NULL);
        assert_int_equal(w[i].rc, 0);
    }
    if (m.missed || !m.met)
        fail_msg("one thread compressed what %u have written", THREADS);
    assert_int_equal(zqcow2_close(img), 0);
    zqcow2_faults_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(woken_by_one)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
