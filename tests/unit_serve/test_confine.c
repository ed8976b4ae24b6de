/* SPDX-License-Identifier: MIT */
/*
 * A server that tries: what a confined process cannot do any more, and what it still can. Every
 * attempt has a process of its own, for in a build with assertions the first bad call ends it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "serve/confine.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FILTERED false /* sanitizers make calls of their own */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define FILTERED false
#endif
#endif
#ifndef FILTERED
#define FILTERED true
#endif

#define NOBODY 65534

static char folder[] = "/tmp/confine-XXXXXX";

static int enter_folder(void **state)
{
    (void)state;
    return !mkdtemp(folder) || chmod(folder, 0777) || chdir(folder) ||
           close(open("file", O_CREAT | O_WRONLY, 0666));
}

static int remove_folder(void **state)
{
    (void)state;
    return unlink("file") || chdir("/") || rmdir(folder);
}

/* Of the server: says that there was a report. */
void serve_report_failure(struct serve_report *r, const char *fmt, ...)
{
    (void)fmt;
    r->fd = -2;
}

/* ---- attempts ---- */

static int file, pipe_fds[2];
static void *page;

static long try_open(void)
{
    return open("/etc/passwd", O_RDONLY);
}

static long try_create(void)
{
    return open("new", O_CREAT | O_WRONLY, 0600);
}

static long try_openat2(void)
{
    uint64_t how[3] = {O_RDONLY};

    return syscall(437, AT_FDCWD, "/etc/passwd", how, sizeof(how));
}

static long try_execve(void)
{
    char *const none[] = {NULL};

    return execve("/bin/true", none, none);
}

static long try_fork(void)
{
    return syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

static long try_socket(void)
{
    return socket(AF_INET, SOCK_STREAM, 0);
}

static long try_connect(void)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = "/dev/log"};

    return connect(pipe_fds[0], (struct sockaddr *)&to, sizeof(to));
}

static long try_bind(void)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX, .sun_path = "socket"};

    return bind(pipe_fds[0], (struct sockaddr *)&to, sizeof(to));
}

static long try_kill(void)
{
    return kill(getppid(), 0);
}

static long try_ptrace(void)
{
    return ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}

static long try_unlink(void)
{
    return unlink("file");
}

static long try_rename(void)
{
    return rename("file", "other");
}

static long try_mkdir(void)
{
    return mkdir("folder", 0700);
}

static long try_link(void)
{
    return link("file", "other");
}

static long try_chmod(void)
{
    return fchmod(file, 04777);
}

static long try_chdir(void)
{
    return chdir("/");
}

static long try_mount(void)
{
    return mount("none", folder, "tmpfs", 0, NULL);
}

static long try_readdir(void)
{
    char buf[64];

    return syscall(SYS_getdents64, file, buf, sizeof(buf));
}

static long try_ioctl(void)
{
    return syscall(SYS_ioctl, file, 0x5401, page);
}

static long try_setuid(void)
{
    return setuid(getuid());
}

static long try_prctl(void)
{
    return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

static long try_limits(void)
{
    return syscall(SYS_prlimit64, 0, 0, NULL, page);
}

static long try_ring(void)
{
    struct io_uring_params p = {0};

    return syscall(SYS_io_uring_setup, 4, &p);
}

static long try_bpf(void)
{
    return syscall(SYS_bpf, 0, page, 0);
}

static long try_code(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
                   MAP_FAILED ?
               -1 :
               0;
}

static long try_protect(void)
{
    return mprotect(page, 4096, PROT_READ | PROT_EXEC);
}

static long try_other_memory(void)
{
    return syscall(SYS_process_vm_readv, getppid(), page, 1, page, 1, 0);
}

#ifdef __x86_64__
/* The same call by its number in the set for 32 bits: harmless there. */
static long try_old_calls(void)
{
    long rc = 20; /* getpid */

    __asm__ volatile("int $0x80" : "+a"(rc) : : "memory");
    errno = rc < 0 ? (int)-rc : 0;
    return rc < 0 ? -1 : rc;
}
#endif

static const struct attempt {
    const char *name;
    long (*run)(void);
} attempts[] = {
    {"open a file", try_open},
    {"create a file", try_create},
    {"openat2", try_openat2},
    {"run a program", try_execve},
    {"fork", try_fork},
    {"make a socket", try_socket},
    {"connect", try_connect},
    {"bind", try_bind},
    {"send a signal", try_kill},
    {"ptrace", try_ptrace},
    {"unlink", try_unlink},
    {"rename", try_rename},
    {"mkdir", try_mkdir},
    {"link", try_link},
    {"chmod", try_chmod},
    {"chdir", try_chdir},
    {"mount", try_mount},
    {"read a folder", try_readdir},
    {"ioctl", try_ioctl},
    {"setuid", try_setuid},
    {"prctl", try_prctl},
    {"set limits", try_limits},
    {"make a ring", try_ring},
    {"bpf", try_bpf},
    {"map code", try_code},
    {"make code of data", try_protect},
    {"read another process", try_other_memory},
#ifdef __x86_64__
    {"calls of 32 bits", try_old_calls},
#endif
};

#define ATTEMPTS (sizeof(attempts) / sizeof(attempts[0]))

enum { HELD, DONE, BROKEN }; /* exit statuses */

static const struct serve_options plain;

static void confine(const struct serve_options *opt)
{
    struct serve_report r = {-1};

    if (serve_confine_rights(opt, &r) || serve_confine_calls(opt, &r) || r.fd != -1)
        _exit(BROKEN);
}

static int wait_status(pid_t pid)
{
    int status;

    while (waitpid(pid, &status, 0) < 0)
        assert_int_equal(errno, EINTR);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static int run_alone(void (*run)(const void *), const void *arg)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (!pid) {
        run(arg);
        _exit(DONE);
    }
    return wait_status(pid);
}

static void attempt(const void *arg)
{
    const struct attempt *a = arg;
    long rc;

    confine(&plain);
    errno = 0;
    rc = a->run();
    _exit(rc != -1 ? DONE : errno == EPERM ? HELD : BROKEN);
}

static void it_cannot_do_more_than_serve(void **state)
{
    unsigned held = 0;

    (void)state;
    if (!FILTERED) {
        print_message("sanitizers make calls of their own\n");
        skip();
    }
    file = open("file", O_RDWR);
    assert_true(file >= 0);
    assert_int_equal(pipe(pipe_fds), 0);
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(page != MAP_FAILED);
    for (size_t i = 0; i < ATTEMPTS; i++) {
        int rc = run_alone(attempt, &attempts[i]);

        if (rc != HELD && rc != -SIGSYS)
            print_error("%s: %s\n", attempts[i].name, rc == DONE ? "done" : "another error");
        held += rc == HELD || rc == -SIGSYS;
    }
    print_message("confine: %u attempts, %u not held\n", (unsigned)ATTEMPTS,
                  (unsigned)ATTEMPTS - held);
    assert_int_equal(held, ATTEMPTS);
    munmap(page, 4096);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    close(file);
}

/* ---- paths, where the kernel has Landlock: also for what a ring opens ---- */

static void open_paths(const void *arg)
{
    struct serve_report r = {-1};
    char byte = 0;
    int fd = open("file", O_RDWR);

    (void)arg;
    if (fd < 0 || serve_confine_rights(&plain, &r))
        _exit(BROKEN);
    if (open("/etc/passwd", O_RDONLY) >= 0 || errno != EACCES)
        _exit(DONE);
    if (open(folder, O_RDONLY | O_DIRECTORY) >= 0 || errno != EACCES)
        _exit(DONE);
    if (unlink("file") == 0 || errno != EACCES)
        _exit(DONE);
    if (pwrite(fd, &byte, 1, 0) != 1 || ftruncate(fd, 4096) || fdatasync(fd))
        _exit(BROKEN);
    _exit(HELD);
}

static void paths_are_barred(void **state)
{
    (void)state;
    if (!FILTERED) {
        print_message("sanitizers open files of their own\n");
        skip();
    }
    if (syscall(444, NULL, 0, 1) < 1) { /* landlock_create_ruleset */
        print_message("no Landlock here: %s\n", strerror(errno));
        skip();
    }
    assert_int_equal(run_alone(open_paths, NULL), HELD);
}

/* ---- rights ---- */

/* The value of a line of /proc/self/status, which is read before paths are barred. */
static void check_status(int fd, const char *line, const char *wanted)
{
    char text[4096], *at;
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    at = strstr(text, line);
    if (!at || strncmp(at + strlen(line), wanted, strlen(wanted))) {
        print_error("%.60s is not %s\n", at ? at : text, wanted);
        _exit(BROKEN);
    }
}

static void become_nobody(const void *arg)
{
    struct serve_options opt = {.user = {true, NOBODY, NOBODY}};
    struct serve_report r = {-1};
    int fd = open("/proc/self/status", O_RDONLY);

    (void)arg;
    if (fd < 0 || serve_confine_rights(&opt, &r))
        _exit(BROKEN);
    check_status(fd, "\nUid:\t", "65534\t65534\t65534\t65534\n");
    check_status(fd, "\nGid:\t", "65534\t65534\t65534\t65534\n");
    check_status(fd, "\nGroups:\t", " \n");
    check_status(fd, "\nCapEff:\t", "0000000000000000\n");
    check_status(fd, "\nNoNewPrivs:\t", "1\n");
    _exit(setuid(0) ? HELD : DONE);
}

static void keep_the_number(const void *arg)
{
    struct serve_report r = {-1};
    int fd = open("/proc/self/status", O_RDONLY);

    (void)arg;
    if (fd < 0 || serve_confine_rights(&plain, &r))
        _exit(BROKEN);
    check_status(fd, "\nCapEff:\t", "0000000000000000\n");
    check_status(fd, "\nCapPrm:\t", "0000000000000000\n");
    check_status(fd, "\nNoNewPrivs:\t", "1\n");
    _exit(HELD);
}

static void rights_are_dropped(void **state)
{
    (void)state;
    assert_int_equal(run_alone(keep_the_number, NULL), HELD);
    if (!geteuid())
        assert_int_equal(run_alone(become_nobody, NULL), HELD);
}

static void unconfined_keeps_all(const void *arg)
{
    const struct serve_options opt = {.unconfined = true};

    (void)arg;
    confine(&opt);
    _exit(open("/etc/passwd", O_RDONLY) >= 0 && !prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) ? HELD :
                                                                                          BROKEN);
}

static void unconfined_is_not_confined(void **state)
{
    (void)state;
    assert_int_equal(run_alone(unconfined_keeps_all, NULL), HELD);
}

/* ---- what is left ---- */

static void *write_and_sleep(void *arg)
{
    static const struct timespec moment = {.tv_nsec = 1000};
    int *fd = arg;

    nanosleep(&moment, NULL);
    return pwrite(*fd, "x", 1, 4095) == 1 && fdatasync(*fd) == 0 ? arg : NULL;
}

static void serve_on(const void *arg)
{
    static const time_t day = 86400;
    pthread_t t;
    void *rc;
    int fd = open("file", O_RDWR), memory;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 1};
    FILE *text;
    char *line = NULL;
    size_t size;

    (void)arg;
    confine(&plain);
    /* Threads, after the filter; the file; memory of a guest; texts with local times. */
    if (pthread_create(&t, NULL, write_and_sleep, &fd) || pthread_join(t, &rc) || rc != &fd)
        _exit(1 + BROKEN);
    if (ftruncate(fd, 8192) || fcntl(fd, F_OFD_SETLK, &lock) || lseek(fd, 0, SEEK_END) != 8192)
        _exit(2 + BROKEN);
    memory = memfd_create("guest", MFD_CLOEXEC);
    if (memory < 0 || ftruncate(memory, 4096) ||
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0) == MAP_FAILED)
        _exit(3 + BROKEN);
    text = open_memstream(&line, &size);
    if (!text || fprintf(text, "%d %s", localtime(&day)->tm_year, strerror(EIO)) < 0 ||
        fclose(text) || strncmp(line, "70 ", 3))
        _exit(4 + BROKEN);
    free(line);
    line = malloc(64u << 20); /* by mmap, and freed by munmap */
    if (!line)
        _exit(5 + BROKEN);
    memset(line, 1, 64u << 20);
    free(line);
    _exit(HELD);
}

static void serving_goes_on(void **state)
{
    (void)state;
    assert_int_equal(run_alone(serve_on, NULL), HELD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_cannot_do_more_than_serve),
        cmocka_unit_test(paths_are_barred),
        cmocka_unit_test(rights_are_dropped),
        cmocka_unit_test(unconfined_is_not_confined),
        cmocka_unit_test(serving_goes_on),
    };

    return cmocka_run_group_tests_name("confine", tests, enter_folder, remove_folder);
}
