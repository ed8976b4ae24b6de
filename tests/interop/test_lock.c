/* SPDX-License-Identifier: MIT */
/* Our locks and those of QEMU's programs keep each other out, in both directions. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "device/backend.h"

static char image[] = "zq-lock-XXXXXX";

static int shell(const char *format)
{
    char cmd[256];
    int rc;

    snprintf(cmd, sizeof(cmd), format, image);
    rc = system(cmd);
    return WIFEXITED(rc) ? WEXITSTATUS(rc) : -1;
}

/* A qemu-io that has the image open until its input ends. */
struct holder {
    pid_t pid;
    int in;
    FILE *out;
};

static struct holder hold(const char *mode)
{
    struct holder h = {.pid = -1};
    int in[2], out[2];
    char line[256] = "";

    assert_int_equal(pipe2(in, O_CLOEXEC) | pipe2(out, O_CLOEXEC), 0);
    h.pid = fork();
    if (h.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(in[0], 0);
        dup2(out[1], 1);
        execlp("qemu-io", "qemu-io", mode, image, (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    h.in = in[1];
    h.out = fdopen(out[0], "r");
    /* Its answer shows that the image is open. */
    assert_int_equal(write(h.in, "read 0 512\n", 11), 11);
    while (fgets(line, sizeof(line), h.out) && !strstr(line, "bytes at offset 0"))
        ;
    if (!strstr(line, "bytes at offset 0"))
        fail_msg("qemu-io %s %s does not run", mode, image);
    return h;
}

static void release(struct holder *h)
{
    close(h->in);
    fclose(h->out);
    assert_int_equal(waitpid(h->pid, NULL, 0), h->pid);
}

static struct zqcow2_backend *open_image(unsigned flags)
{
    struct zqcow2_backend *be = NULL;

    assert_int_equal(zqcow2_file_open(image, flags, NULL, &be), 0);
    return be;
}

static void test_exclusive_keeps_qemu_out(void **state)
{
    struct zqcow2_backend *be = open_image(ZQCOW2_FILE_RDWR);

    (void)state;
    assert_int_equal(zq_be_lock(be, ZQCOW2_LOCK_EXCLUSIVE), 0);
    assert_int_not_equal(shell("qemu-img info %s >/dev/null 2>&1"), 0);
    assert_int_not_equal(shell("qemu-io -c 'write 0 512' %s >/dev/null 2>&1"), 0);
    assert_int_equal(shell("qemu-img info -U %s >/dev/null"), 0);
    assert_int_equal(zq_be_lock(be, ZQCOW2_LOCK_NONE), 0);
    assert_int_equal(shell("qemu-img info %s >/dev/null"), 0);
    zqcow2_backend_close(be);
}

static void test_shared_lets_readers_in(void **state)
{
    struct zqcow2_backend *be = open_image(0);

    (void)state;
    assert_int_equal(zq_be_lock(be, ZQCOW2_LOCK_SHARED), 0);
    assert_int_equal(shell("qemu-img info %s >/dev/null"), 0);
    assert_int_equal(shell("qemu-io -r -c 'read 0 512' %s >/dev/null"), 0);
    assert_int_not_equal(shell("qemu-io -c 'write 0 512' %s >/dev/null 2>&1"), 0);
    zqcow2_backend_close(be);
    assert_int_equal(shell("qemu-io -c 'write 0 512' %s >/dev/null"), 0);
}

static void test_qemu_writer_keeps_us_out(void **state)
{
    struct holder h = hold("--misalign");
    struct zqcow2_backend *rw = open_image(ZQCOW2_FILE_RDWR), *ro = open_image(0);

    (void)state;
    assert_int_equal(zq_be_lock(rw, ZQCOW2_LOCK_EXCLUSIVE), -EAGAIN);
    assert_int_equal(zq_be_lock(ro, ZQCOW2_LOCK_SHARED), -EAGAIN);
    release(&h);
    assert_int_equal(zq_be_lock(ro, ZQCOW2_LOCK_SHARED), 0);
    assert_int_equal(zq_be_lock(ro, ZQCOW2_LOCK_NONE), 0);
    assert_int_equal(zq_be_lock(rw, ZQCOW2_LOCK_EXCLUSIVE), 0);
    zqcow2_backend_close(ro);
    zqcow2_backend_close(rw);
}

static void test_qemu_reader_shares(void **state)
{
    struct holder h = hold("-r");
    struct zqcow2_backend *rw = open_image(ZQCOW2_FILE_RDWR), *ro = open_image(0);

    (void)state;
    assert_int_equal(zq_be_lock(rw, ZQCOW2_LOCK_EXCLUSIVE), -EAGAIN);
    assert_int_equal(zq_be_lock(ro, ZQCOW2_LOCK_SHARED), 0);
    release(&h);
    zqcow2_backend_close(ro);
    zqcow2_backend_close(rw);
}

/* A process that dies leaves no lock behind. */
static void test_dead_holder(void **state)
{
    struct zqcow2_backend *be = open_image(ZQCOW2_FILE_RDWR);
    int ready[2], status;
    char c = 0;

    (void)state;
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        struct zqcow2_backend *mine = NULL;
        int rc = zqcow2_file_open(image, ZQCOW2_FILE_RDWR, NULL, &mine);
        c = rc == 0 && zq_be_lock(mine, ZQCOW2_LOCK_EXCLUSIVE) == 0 ? 'y' : 'n';
        if (write(ready[1], &c, 1) == 1)
            pause();
        _exit(1);
    }
    assert_int_equal(read(ready[0], &c, 1), 1);
    assert_int_equal(c, 'y');
    assert_int_equal(zq_be_lock(be, ZQCOW2_LOCK_EXCLUSIVE), -EAGAIN);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(zq_be_lock(be, ZQCOW2_LOCK_EXCLUSIVE), 0);
    zqcow2_backend_close(be);
    close(ready[0]);
    close(ready[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exclusive_keeps_qemu_out),
        cmocka_unit_test(test_shared_lets_readers_in),
        cmocka_unit_test(test_qemu_writer_keeps_us_out),
        cmocka_unit_test(test_qemu_reader_shares),
        cmocka_unit_test(test_dead_holder),
    };
    int fd = mkstemp(image), failed;

    if (fd < 0 || close(fd) < 0) {
        perror(image);
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    alarm(120);
    if (shell("qemu-img create -q -f qcow2 %s 1M") != 0 || shell("qemu-io -c quit %s") != 0) {
        fprintf(stderr, "no usable qemu-img and qemu-io: skipped\n");
        unlink(image);
        return 77;
    }
    failed = cmocka_run_group_tests_name("lock", tests, NULL, NULL);
    unlink(image);
    return failed;
}
