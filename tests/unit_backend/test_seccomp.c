/* SPDX-License-Identifier: MIT */
/*
 * The list of system calls in zqcow2-embedding(7) is enough: an image is served under filters that
 * allow what the manual names, read from the manual itself, and end the process for anything else.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <zqcow2/backend.h>
#include <zqcow2/queue.h>

/* The list is that of the GNU C library: others make the same calls by other names. */
#if !defined(__GLIBC__)
#define ARCH 0u
#elif defined(__x86_64__) && defined(__LP64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#elif defined(__riscv) && __riscv_xlen == 64
#define ARCH AUDIT_ARCH_RISCV64
#elif defined(__s390x__)
#define ARCH AUDIT_ARCH_S390X
#else
#define ARCH 0u
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#else
#define SANITIZED false
#endif

#define SKIP  77
#define MIB   (1u << 20)
#define ZONES 8u
#define PIECE 4096u
#define MANY  200u /* more than the ring takes at a time */
#define MOST  96u  /* calls of one filter */

/* ---- what the manual names ---- */

#define CALL(name) \
    { \
#name, __NR_##name \
    }
static const struct {
    const char *name;
    int nr;
} calls[] = {
    CALL(brk),
    CALL(mmap),
    CALL(munmap),
    CALL(mprotect),
    CALL(madvise),
    CALL(futex),
    CALL(read),
    CALL(write),
    CALL(eventfd2),
    CALL(epoll_create1),
    CALL(epoll_ctl),
    CALL(close),
    CALL(pread64),
    CALL(pwrite64),
    CALL(preadv),
    CALL(pwritev),
    CALL(preadv2),
    CALL(pwritev2),
    CALL(fdatasync),
    CALL(ftruncate),
    CALL(fallocate),
    CALL(fstat),
    CALL(newfstatat),
    CALL(fcntl),
    CALL(fadvise64),
    CALL(openat),
    CALL(statx),
    CALL(ioctl),
    CALL(lseek),
    CALL(io_uring_enter),
    CALL(io_uring_setup),
    CALL(io_uring_register),
    CALL(clock_nanosleep),
    CALL(clone3),
    CALL(rt_sigprocmask),
    CALL(set_robust_list),
    CALL(rseq),
    CALL(exit),
    CALL(ppoll),
    CALL(getrandom),
#ifdef __NR_poll
    CALL(poll),
#endif
    /* Not in the manual: to name what else was called. */
    CALL(sched_yield),
    CALL(gettid),
    CALL(getpid),
    CALL(tgkill),
    CALL(rt_sigaction),
    CALL(prlimit64),
    CALL(mremap),
    CALL(clone),
    CALL(uname),
    CALL(sched_getaffinity),
    CALL(clock_gettime),
};

/* Only in some processors' tables. */
static bool is_missing_here(const char *name)
{
#ifdef __NR_poll
    (void)name;
    return false;
#else
    return !strcmp(name, "poll");
#endif
}

static const char *name_of(int nr)
{
    static char text[24];

    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        if (calls[i].nr == nr)
            return calls[i].name;
    }
    snprintf(text, sizeof(text), "call %d", nr);
    return text;
}

static int number_of(const char *name)
{
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        if (!strcmp(calls[i].name, name))
            return calls[i].nr;
    }
    if (is_missing_here(name))
        return -1;
    printf("zqcow2-embedding(7) names %s, which this test does not know\n", name);
    exit(1);
}

static struct {
    char item[40];
    bool opening;
    int nr;
} listed[160];
static unsigned nlisted;

/* Lines of the form ".Xr name 2" and ".Fn name"; the second list holds what opening needs. */
static void read_line(const char *line, char *item, size_t room, unsigned *lists)
{
    char name[40] = "";
    unsigned section = 2;
    size_t n;

    if (!strncmp(line, ".Bl", 3)) {
        ++*lists;
    } else if (!strncmp(line, ".It ", 4)) {
        n = strcspn(line + 4, "\n");
        snprintf(item, room, "%.*s", (int)(n < room ? n : room - 1), line + 4);
    } else if ((sscanf(line, ".Xr %39s %u", name, &section) >= 1 ||
                sscanf(line, ".Fn %39s", name) == 1) &&
               section == 2) {
        if (nlisted == sizeof(listed) / sizeof(listed[0]))
            exit(1);
        snprintf(listed[nlisted].item, sizeof(listed[0].item), "%s", *lists ? item : "allocator");
        listed[nlisted].opening = *lists > 1;
        listed[nlisted++].nr = number_of(name);
    }
}

static void read_manual(const char *path)
{
    FILE *f = fopen(path, "r");
    char line[256], item[40] = "";
    unsigned lists = 0;
    bool inside = false;

    while (f && fgets(line, sizeof(line), f)) {
        if (!strncmp(line, ".Ss", 3) || !strncmp(line, ".Sh", 3))
            inside = !strcmp(line, ".Ss System calls\n");
        else if (inside)
            read_line(line, item, sizeof(item), &lists);
    }
    if (f)
        fclose(f);
    if (nlisted < 40 || lists != 2) {
        printf("%s: %u system calls in %u lists are no list of them\n", path, nlisted, lists);
        exit(1);
    }
}

/* ---- a run ---- */

enum kind { FILES, THREADS, URING, KINDS };
enum way { PATH, DIRECT, HANDED, WAYS };

static const char *const kind_names[] = {"file", "threads", "io_uring"};
static const char *const way_names[] = {"a path", "O_DIRECT", "a descriptor"};

struct plan {
    enum kind kind;
    enum way way;
    bool descriptors; /* of queues */
    bool opening;     /* filtered from before it is opened */
    unsigned action;
    int extra; /* allowed in addition; -1: nothing */
};

static struct shared {
    int line, rc, call;
} * shared;

static char path[] = "zq-seccomp-XXXXXX";
static _Alignas(4096) uint8_t buf[MANY][PIECE];

#define MUST(x) \
    do { \
        if (!(x)) { \
            shared->line = __LINE__; \
            _exit(1); \
        } \
    } while (0)
#define GOOD(x) MUST((shared->rc = (x)) >= 0)

static bool is_allowed(const struct plan *p, unsigned i)
{
    const char *item = listed[i].item;

    if (listed[i].nr < 0 || (listed[i].opening && !p->opening))
        return false;
    return !strcmp(item, "allocator") || !strcmp(item, "any image") || !strcmp(item, "file") ||
           !strcmp(item, kind_names[p->kind]) ||
           (p->descriptors && !strcmp(item, "a queue with a descriptor"));
}

static void allow(struct sock_filter *f, unsigned *n, int nr)
{
    f[(*n)++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)nr, 0, 1);
    f[(*n)++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
}

/* On all threads. The test's own calls: ppoll, to wait on descriptors, and exit_group. */
static void restrict_to(const struct plan *p)
{
    struct sock_filter f[2 * MOST + 8];
    struct sock_fprog prog = {0, f};
    unsigned n = 0;

    f[n++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
    f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0);
    f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    f[n++] =
        (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    allow(f, &n, __NR_exit_group);
    if (p->descriptors)
        allow(f, &n, __NR_ppoll);
    if (p->extra >= 0)
        allow(f, &n, p->extra);
    for (unsigned i = 0; i < nlisted; i++) {
        MUST(n < 2 * MOST);
        if (is_allowed(p, i))
            allow(f, &n, listed[i].nr);
    }
    f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, p->action);
    prog.len = (unsigned short)n;
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    MUST(syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prog) == 0);
}

static void trapped(int sig, siginfo_t *info, void *context)
{
    (void)sig;
    (void)context;
    shared->call = info->si_syscall;
    _exit(1);
}

static void open_backend(const struct plan *p, int fd, struct zqcow2_backend **be)
{
    unsigned flags = ZQCOW2_FILE_RDWR | (p->way == DIRECT ? ZQCOW2_FILE_DIRECT : 0u);
    struct zqcow2_backend *inner;
    int rc;

    if (p->kind == URING)
        rc = p->way == HANDED ? zqcow2_uring_from_fd(fd, NULL, be) :
                                zqcow2_uring_open(path, flags, NULL, be);
    else
        rc = p->way == HANDED ? zqcow2_file_from_fd(fd, NULL, &inner) :
                                zqcow2_file_open(path, flags, NULL, &inner);
    if ((rc == -ENOSYS && p->kind == URING) || (rc == -EINVAL && p->way == DIRECT)) {
        shared->rc = rc;
        _exit(SKIP);
    }
    GOOD(rc);
    if (p->kind == THREADS)
        GOOD(zqcow2_threads_wrap(inner, 3, NULL, be));
    else if (p->kind == FILES)
        *be = inner;
}

static void open_image(const struct plan *p, struct zqcow2_image **img)
{
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;
    int fd = p->way == HANDED ? open(path, O_RDWR | O_CLOEXEC) : -1;

    if (p->opening)
        restrict_to(p);
    open_backend(p, fd, &be);
    how.virtual_size = ZONES * MIB;
    how.zone_size = MIB;
    how.conventional_zones = 1;
    how.flags = ZQCOW2_CREATE_FORCE;
    GOOD(zqcow2_create(be, &how, NULL));
    opt.flags = ZQCOW2_OPEN_RDWR;
    GOOD(zqcow2_open(be, &opt, img, NULL));
    if (!p->opening)
        restrict_to(p);
}

static unsigned answers;

static void answered(void *user, const struct zqcow2_result *res)
{
    (void)user;
    answers++;
    GOOD(res->ret);
}

static void submit(struct zqcow2_queue *q, uint32_t op, uint64_t off, uint64_t len, uint32_t flags)
{
    static struct iovec iov[MANY];
    static unsigned n;
    struct zqcow2_request r;

    memset(&r, 0, sizeof(r));
    r.size = sizeof(r);
    r.op = (uint16_t)op;
    r.flags = (uint16_t)flags;
    r.offset = off;
    r.length = len;
    if (op <= ZQCOW2_OP_APPEND) { /* reads and writes */
        iov[n % MANY] = (struct iovec){buf[n % MANY], (size_t)len};
        r.iov = &iov[n++ % MANY];
        r.iovcnt = 1;
    }
    r.done = answered;
    MUST(zqcow2_queue_submit(q, &r, 1) == 1);
}

static int poll_fd(struct pollfd *p, int ms)
{
    struct timespec ts = {ms / 1000, ms % 1000 * 1000000L};

    return ppoll(p, 1, &ts, NULL);
}

/* All that is in flight; with a descriptor by waiting for it, else in the library. */
static void settle(struct zqcow2_queue *q, int fd)
{
    while (zqcow2_queue_pending(q)) {
        struct pollfd p = {fd, POLLIN, 0};

        if (fd < 0) {
            GOOD(zqcow2_queue_wait(q, 1, 1000));
            continue;
        }
        MUST(poll_fd(&p, 1000) >= 0 || errno == EINTR);
        GOOD(zqcow2_queue_poll(q, MANY));
    }
}

static void serve(struct zqcow2_queue *q, int fd, unsigned salt)
{
    uint64_t zone = (1 + salt % (ZONES - 1)) * (uint64_t)MIB;

    for (unsigned i = 0; i < MANY / 2; i++)
        submit(q, ZQCOW2_OP_APPEND, zone, PIECE, 0);
    settle(q, fd);
    for (unsigned i = 0; i < MANY; i++)
        submit(q, ZQCOW2_OP_READ, zone + i * PIECE, PIECE, 0);
    settle(q, fd);
    submit(q, ZQCOW2_OP_WRITE, salt * 512, 512, ZQCOW2_FUA);
    submit(q, ZQCOW2_OP_WRITE_ZEROES, 65536, 65536, 0);
    settle(q, fd);
    submit(q, ZQCOW2_OP_DISCARD, 65536, 65536, 0);
    submit(q, ZQCOW2_OP_FLUSH, 0, 0, 0);
    settle(q, fd);
    submit(q, ZQCOW2_OP_ZONE_FINISH, zone, MIB, 0);
    settle(q, fd);
    submit(q, ZQCOW2_OP_ZONE_RESET, zone, MIB, salt & 1 ? ZQCOW2_FUA : 0);
    settle(q, fd);
    submit(q, ZQCOW2_OP_FLUSH, 0, 0, 0);
    settle(q, fd);
}

/* Nothing to do: neither in the library nor on the descriptor. */
static void idle(struct zqcow2_queue *q, int fd)
{
    struct pollfd p = {fd, POLLIN, 0};

    GOOD(zqcow2_queue_wait(q, 1, 2));
    if (fd >= 0)
        MUST(poll_fd(&p, 2) >= 0);
}

static void through_queues(const struct plan *p, struct zqcow2_image *img, unsigned n)
{
    struct zqcow2_queue *q[3];
    int fd[3] = {-1, -1, -1};

    for (unsigned i = 0; i < n; i++) {
        GOOD(zqcow2_queue_open(img, MANY, &q[i]));
        if (p->descriptors)
            GOOD(fd[i] = zqcow2_queue_fd(q[i]));
    }
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < n; i++)
            serve(q[i], fd[i], round * n + i);
        for (unsigned i = 0; i < n; i++) /* side by side */
            submit(q[i], ZQCOW2_OP_APPEND, (1 + i) * MIB, PIECE, ZQCOW2_FUA);
        for (unsigned i = 0; i < n; i++)
            settle(q[i], fd[i]);
        for (unsigned i = 0; i < n; i++)
            idle(q[i], fd[i]);
    }
    for (unsigned i = 0; i < n; i++)
        GOOD(zqcow2_queue_close(q[i]));
}

static void blocking(struct zqcow2_image *img)
{
    uint64_t at;

    for (unsigned i = 1; i < ZONES; i++) {
        at = i * (uint64_t)MIB;
        GOOD(zqcow2_append(img, buf, 3 * PIECE - 512, &at, i & 1 ? ZQCOW2_FUA : 0));
    }
    GOOD(zqcow2_read(img, buf, sizeof(buf), MIB));
    GOOD(zqcow2_flush(img));
    GOOD(zqcow2_zone_reset(img, 0, ZONES * (uint64_t)MIB, 0));
    GOOD(zqcow2_flush(img));
    GOOD(zqcow2_flush(img)); /* nothing to write */
    GOOD(zqcow2_drain(img));
}

static void child(const struct plan *p)
{
    struct sigaction trap = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO};
    struct zqcow2_image *img;

    sigaction(SIGSYS, &trap, NULL);
    open_image(p, &img);
    blocking(img);
    through_queues(p, img, 1);
    through_queues(p, img, 3);
    blocking(img);
    GOOD(zqcow2_close(img));
    MUST(answers > 1000);
    _exit(0);
}

static int run(const struct plan *p)
{
    int status = -1;
    pid_t pid;

    *shared = (struct shared){0, 0, -1};
    fflush(stdout);
    pid = fork();
    if (pid == 0)
        child(p);
    return pid > 0 && waitpid(pid, &status, 0) == pid ? status : -1;
}

static bool is_killed(int status)
{
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
}

/* Which call it was: a trap says so, or, where signals are blocked, what has to be allowed. */
static const char *name_killer(struct plan p)
{
    p.action = SECCOMP_RET_TRAP;
    if (!is_killed(run(&p)))
        return name_of(shared->call);
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        p.extra = calls[i].nr;
        if (!is_killed(run(&p)))
            return calls[i].name;
    }
    return "more than one call";
}

/* 0: allowed; SKIP: not here; 1: it failed. */
static int judge(struct plan p)
{
    const char *when = p.opening ? "from open to close" : "once it is open";
    int status;

    p.action = SECCOMP_RET_KILL_PROCESS;
    status = run(&p);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    if (WIFEXITED(status) && WEXITSTATUS(status) == SKIP) {
        printf("skipped: %s by %s: %s\n", kind_names[p.kind], way_names[p.way],
               zqcow2_strerror(shared->rc));
        return SKIP;
    }
    if (is_killed(status)) {
        printf("%s by %s, %s, queues %s descriptors: killed for %s\n", kind_names[p.kind],
               way_names[p.way], when, p.descriptors ? "with" : "without", name_killer(p));
        return 1;
    }
    printf("%s by %s, %s: status 0x%x, line %d: %s\n", kind_names[p.kind], way_names[p.way], when,
           (unsigned)status, shared->line, zqcow2_strerror(shared->rc));
    return 1;
}

static int judge_all(void)
{
    unsigned good = 0, bad = 0;

    for (unsigned k = 0; k < KINDS; k++) {
        for (unsigned i = 0; i < WAYS * 4u; i++) {
            struct plan p = {(enum kind)k, (enum way)(i / 4), i & 1, i & 2, 0, -1};
            int rc = judge(p);

            good += rc == 0;
            bad += rc == 1;
        }
    }
    printf("served under a filter that kills: %u, killed or failed: %u, calls listed: %u\n", good,
           bad, nlisted);
    return bad || !good;
}

int main(void)
{
    int rc;

    if (!ARCH || SANITIZED || prctl(PR_GET_SECCOMP, 0, 0, 0, 0) < 0) {
        printf("skipped: %s\n", !ARCH     ? "not the processor or C library of the list" :
                                SANITIZED ? "sanitizers make calls of their own" :
                                            "a kernel without seccomp");
        return SKIP;
    }
    read_manual(ZQ_MANUAL);
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 1;
    close(mkstemp(path));
    rc = judge_all();
    unlink(path);
    return rc;
}
