/* SPDX-License-Identifier: MIT */
/* What a server gives up once it is set up. */
#include "serve/confine.h"

#include <errno.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "serve/landlock.h"

/* Sanitizers make calls of their own, and open files at the end. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED true
#endif
#endif
#ifndef SANITIZED
#define SANITIZED false
#endif

/* ---- rights ---- */

static int take_user(const struct serve_user *u)
{
    if (!u->given)
        return 0;
    return setgroups(0, NULL) || setgid(u->gid) || setuid(u->uid) ? -errno : 0;
}

/* A server that root started without a user keeps the number 0, which opens its control socket. */
static int drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0}};

    return syscall(SYS_capset, &header, none) ? -errno : 0;
}

static int give_up(const struct serve_options *opt)
{
    int rc = take_user(&opt->user);

    tzset(); /* reads its file now: lists of snapshots and syslog() have local times */

    if (rc == 0)
        rc = drop_capabilities();
    if (rc == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        rc = -errno;
    return rc < 0 || SANITIZED ? rc : serve_landlock();
}

static int report(struct serve_report *r, int rc)
{
    if (rc < 0)
        serve_report_failure(r, "the server cannot be confined: %s (see --unconfined)",
                             strerror(-rc));
    return rc;
}

int serve_confine_rights(const struct serve_options *opt, struct serve_report *r)
{
    return opt->unconfined ? 0 : report(r, give_up(opt));
}

/* ---- calls ---- */

/* A process can make the calls of other sets, too, whose numbers mean other calls. */
#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__i386__)
#define ARCH AUDIT_ARCH_I386
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#elif defined(__arm__)
#define ARCH AUDIT_ARCH_ARM
#elif defined(__riscv) && __riscv_xlen == 64
#define ARCH AUDIT_ARCH_RISCV64
#elif defined(__s390x__)
#define ARCH AUDIT_ARCH_S390X
#elif defined(__powerpc64__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define ARCH AUDIT_ARCH_PPC64LE
#else
#define ARCH 0u /* not known: no filter */
#endif

/*
 * Those of the library, from zqcow2-embedding(7), with the names of other C libraries and
 * processors; of threads, of sockets that are open, and of the memory of guests.
 */
static const int allowed[] = {
    SYS_brk,
    SYS_munmap,
    SYS_madvise,
    SYS_mremap,
    SYS_futex,
    SYS_read,
    SYS_write,
    SYS_readv,
    SYS_writev,
    SYS_pread64,
    SYS_pwrite64,
    SYS_preadv,
    SYS_pwritev,
    SYS_preadv2,
    SYS_pwritev2,
    SYS_fsync,
    SYS_fdatasync,
    SYS_ftruncate,
    SYS_fallocate,
    SYS_fstat,
    SYS_fcntl,
    SYS_fadvise64,
    SYS_lseek,
    SYS_close,
    SYS_eventfd2,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_ppoll,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    SYS_nanosleep,
    SYS_clock_nanosleep,
    SYS_clock_gettime,
    SYS_set_robust_list,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_restart_syscall,
    SYS_exit,
    SYS_exit_group,
    SYS_sched_yield,
    SYS_sched_getaffinity,
    SYS_sysinfo,
    SYS_getrandom,
    SYS_getpid,
    SYS_gettid,
    SYS_geteuid,
    SYS_accept4,
    SYS_recvmsg,
    SYS_sendmsg,
    SYS_recvfrom,
    SYS_sendto,
    SYS_getsockopt,
    SYS_shutdown,
    SYS_memfd_create,
    SYS_wait4,
#ifdef ZQ_OS_PORTABLE /* how a portable library locks, and makes events */
    SYS_flock,
    SYS_pipe2,
#ifdef SYS_pipe
    SYS_pipe,
#endif
#endif
#ifdef SYS_rseq
    SYS_rseq,
#endif
#ifdef SYS_newfstatat
    SYS_newfstatat,
#endif
#ifdef SYS_poll
    SYS_poll,
#endif
#ifdef SYS_epoll_wait
    SYS_epoll_wait,
#endif
#ifdef SYS_fstat64 /* processors of 32 bits */
    SYS_fstat64,
    SYS_fstatat64,
    SYS_fcntl64,
    SYS_ftruncate64,
    SYS__llseek,
#endif
#ifdef SYS_fadvise64_64
    SYS_fadvise64_64,
#endif
#ifdef SYS_arm_fadvise64_64
    SYS_arm_fadvise64_64,
#endif
#ifdef SYS_futex_time64
    SYS_futex_time64,
    SYS_ppoll_time64,
    SYS_clock_gettime64,
    SYS_clock_nanosleep_time64,
#endif
};

#define CALLS (sizeof(allowed) / sizeof(allowed[0]))
/* The word of an argument that holds its low 32 bits. */
#define LOW(n) \
    ((unsigned)offsetof(struct seccomp_data, args[n]) + \
     (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? 4u : 0u))
#ifdef __s390x__
#define CLONE_FLAGS 1
#else
#define CLONE_FLAGS 0
#endif
#ifndef NDEBUG
#define OTHER_CALL SECCOMP_RET_KILL_PROCESS
#else
#define OTHER_CALL (SECCOMP_RET_ERRNO | EPERM)
#endif

struct filter {
    struct sock_filter f[2 * CALLS + 48];
    unsigned short n;
};

static void put(struct filter *p, unsigned code, unsigned k, unsigned yes, unsigned no)
{
    p->f[p->n++] = (struct sock_filter){(uint16_t)code, (uint8_t)yes, (uint8_t)no, k};
}

static void answer(struct filter *p, unsigned with)
{
    put(p, BPF_RET | BPF_K, with, 0, 0);
}

static void answer_call(struct filter *p, int call, unsigned with)
{
    put(p, BPF_JMP | BPF_JEQ | BPF_K, (unsigned)call, 0, 1);
    answer(p, with);
}

/* Allowed where the bits of argument n are as wanted: all there, or none. */
static void check_bits(struct filter *p, int call, unsigned n, unsigned bits, bool wanted)
{
    put(p, BPF_JMP | BPF_JEQ | BPF_K, (unsigned)call, 0, 4);
    put(p, BPF_LD | BPF_W | BPF_ABS, LOW(n), 0, 0);
    put(p, BPF_JMP | BPF_JSET | BPF_K, bits, !wanted, wanted);
    answer(p, SECCOMP_RET_ALLOW);
    answer(p, SECCOMP_RET_ERRNO | EPERM);
}

static void write_filter(struct filter *p)
{
    p->n = 0;
    put(p, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch), 0, 0);
    put(p, BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0);
    answer(p, OTHER_CALL);
    put(p, BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr), 0, 0);
#ifdef SYS_clone3 /* its flags are out of reach; C libraries then use the older call */
    answer_call(p, SYS_clone3, SECCOMP_RET_ERRNO | ENOSYS);
#endif
    /* Allocators ask a file how many processors there are, syslog() connects again: not here. */
    answer_call(p, SYS_openat, SECCOMP_RET_ERRNO | EPERM);
#ifdef SYS_socket
    answer_call(p, SYS_socket, SECCOMP_RET_ERRNO | EPERM);
#endif
    check_bits(p, SYS_clone, CLONE_FLAGS, 0x10000 /* CLONE_THREAD */, true);
#ifdef SYS_mmap
    check_bits(p, SYS_mmap, 2, PROT_EXEC, false);
#endif
#ifdef SYS_mmap2
    check_bits(p, SYS_mmap2, 2, PROT_EXEC, false);
#endif
    check_bits(p, SYS_mprotect, 2, PROT_EXEC, false);
    for (size_t i = 0; i < CALLS; i++)
        answer_call(p, allowed[i], SECCOMP_RET_ALLOW);
    answer(p, OTHER_CALL);
}

int serve_confine_calls(const struct serve_options *opt, struct serve_report *r)
{
    struct filter p;
    struct sock_fprog prog = {.filter = p.f};

    if (opt->unconfined || SANITIZED || !ARCH)
        return 0;
    write_filter(&p);
    prog.len = p.n;
    /* More than 0: that thread cannot take it, which no thread of ours is. */
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &prog) == 0)
        return 0;
    return report(r, -errno);
}
