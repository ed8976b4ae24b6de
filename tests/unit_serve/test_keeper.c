/* SPDX-License-Identifier: MIT */
/*
 * The keeper of a server's rights: it does what was agreed before it was started, and nothing else.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "serve/keeper.h"

static char folder[] = "/tmp/keeper-XXXXXX";

static int enter_folder(void **state)
{
    (void)state;
    return !mkdtemp(folder) || chdir(folder) || close(open("file", O_CREAT | O_WRONLY, 0666));
}

static int remove_folder(void **state)
{
    (void)state;
    return unlink("file") || chdir("/") || rmdir(folder);
}

static int remove_file(void *arg)
{
    return unlink(arg) ? -errno : 0;
}

static int add_one(void *arg)
{
    return ++*(int *)arg;
}

/* Whether another process could lock what this one has locked. */
static bool is_locked(const char *path)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
    int fd = open(path, O_RDWR), rc;

    assert_true(fd >= 0);
    rc = fcntl(fd, F_OFD_SETLK, &lock);
    close(fd);
    return rc != 0;
}

static char kept[256];

static void put_file(const char *name)
{
    int fd;

    snprintf(kept, sizeof(kept), "%s/%s", folder, name);
    fd = open(kept, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0);
    close(fd);
}

static void the_keeper_does_what_was_agreed(void **state)
{
    struct serve_keeper k = SERVE_KEEPER_INIT;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
    int number = 5, fd = open("file", O_RDWR);

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
    put_file("kept");
    serve_keeper_task(&k, add_one, &number);
    serve_keeper_task(&k, remove_file, kept);
    assert_int_equal(serve_keeper_start(&k), 0);
    /* On memory as it was, which is its own: a name that is changed later is not its name. */
    number = 50;
    kept[0] = '!';
    assert_int_equal(serve_keeper_run(&k, add_one, &number), 6);
    assert_int_equal(serve_keeper_run(&k, add_one, &number), 7);
    assert_int_equal(number, 50);
    assert_int_equal(serve_keeper_run(&k, remove_file, kept), 0);
    assert_int_equal(serve_keeper_run(&k, remove_file, kept), -ENOENT);
    /* It holds no lock of the server. */
    assert_true(is_locked("file"));
    close(fd);
    assert_false(is_locked("file"));
    close(k.sock);
}

static void nothing_else_is_done(void **state)
{
    struct serve_keeper k = SERVE_KEEPER_INIT;
    unsigned char number = 1;
    int n = 0, rc;

    (void)state;
    serve_keeper_task(&k, add_one, &n);
    assert_int_equal(serve_keeper_start(&k), 0);
    assert_int_equal(send(k.sock, &number, 1, MSG_NOSIGNAL), 1);
    assert_int_equal(recv(k.sock, &rc, sizeof(rc), 0), 0); /* it has ended */
    assert_int_equal(serve_keeper_run(&k, add_one, &n), -EPIPE);
    assert_int_equal(n, 0);
    close(k.sock);
}

static void without_a_keeper_the_server_does_it(void **state)
{
    struct serve_keeper k = SERVE_KEEPER_INIT;
    int n = 0;

    (void)state;
    assert_int_equal(serve_keeper_run(&k, add_one, &n), 1);
    assert_int_equal(n, 1);
}

/* The server is killed: the keeper removes nothing and does not stay. */
static void it_ends_with_the_server(void **state)
{
    int ends[2], status;
    char byte;
    pid_t pid;

    (void)state;
    put_file("left");
    assert_int_equal(pipe(ends), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        struct serve_keeper k = SERVE_KEEPER_INIT;

        close(ends[0]);
        serve_keeper_task(&k, remove_file, kept);
        serve_keeper_fd(&k, ends[1]); /* open as long as it lives */
        if (serve_keeper_start(&k) == 0)
            raise(SIGKILL);
        _exit(1);
    }
    close(ends[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(read(ends[0], &byte, 1), 0);
    close(ends[0]);
    assert_int_equal(unlink(kept), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_keeper_does_what_was_agreed),
        cmocka_unit_test(nothing_else_is_done),
        cmocka_unit_test(without_a_keeper_the_server_does_it),
        cmocka_unit_test(it_ends_with_the_server),
    };

    return cmocka_run_group_tests_name("keeper", tests, enter_folder, remove_folder);
}
