/* SPDX-License-Identifier: MIT */
/* The process around the verbs: its standard streams, and the signals that end it. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "tool.h"

/* ---- standard streams ---- */

/*
 * What is closed is opened the wrong way round: no file takes its place, and reading or writing
 * there fails as before.
 */
bool zt_open_streams(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        int how = fd == STDIN_FILENO ? O_WRONLY : O_RDONLY;

        if (fcntl(fd, F_GETFD) >= 0 || errno != EBADF)
            continue;
        if (open("/dev/null", how) < 0 && open("/", O_RDONLY | O_DIRECTORY) < 0)
            return false;
    }
    return true;
}

/* stdio keeps no cause: a byte more meets the same one. */
static int output_error(void)
{
    if (fflush(stdout) != 0)
        return errno;
    if (!ferror(stdout))
        return 0;
    return write(STDOUT_FILENO, "\n", 1) < 0 ? errno : EIO;
}

bool zt_output_ok(void)
{
    static bool reported;
    int err = reported ? EIO : output_error();

    if (err && !reported)
        zt_error("standard output: %s", strerror(err));
    reported |= err != 0;
    return !err;
}

/* ---- signals ---- */

static const struct {
    int number;
    const char *name;
} stops[] = {{SIGINT, "SIGINT"}, {SIGTERM, "SIGTERM"}, {SIGHUP, "SIGHUP"}};

static sigset_t held;
static int held_fd = -1; /* readable when one of them is pending */

/* Those that are ignored or blocked, as by nohup, stay so. */
void zt_hold_signals(void)
{
    struct sigaction action;
    sigset_t blocked;

    if (held_fd >= 0)
        return;
    sigemptyset(&held);
    sigprocmask(SIG_BLOCK, NULL, &blocked);
    for (size_t i = 0; i < ZT_COUNT(stops); i++) {
        if (sigaction(stops[i].number, NULL, &action) == 0 && action.sa_handler == SIG_DFL &&
            !sigismember(&blocked, stops[i].number))
            sigaddset(&held, stops[i].number);
    }
    held_fd = signalfd(-1, &held, SFD_CLOEXEC | SFD_NONBLOCK);
    if (held_fd >= 0)
        sigprocmask(SIG_BLOCK, &held, NULL);
}

const char *zt_signal(void)
{
    sigset_t pending;

    if (held_fd < 0 || sigpending(&pending) < 0)
        return NULL;
    for (size_t i = 0; i < ZT_COUNT(stops); i++) {
        if (sigismember(&held, stops[i].number) && sigismember(&pending, stops[i].number))
            return stops[i].name;
    }
    return NULL;
}

void zt_release_signals(void)
{
    if (held_fd >= 0)
        sigprocmask(SIG_UNBLOCK, &held, NULL);
}

enum zt_input zt_wait_input(double seconds)
{
    struct pollfd p[2] = {{.fd = STDIN_FILENO, .events = POLLIN},
                          {.fd = held_fd, .events = POLLIN}};
    int timeout = seconds < 0 ? -1 : (int)(seconds * 1000) + 1, n;

    do {
        n = poll(p, 2, timeout);
    } while (n < 0 && errno == EINTR);
    if (p[1].revents)
        return ZT_INPUT_STOP;
    return n == 0 ? ZT_INPUT_LATE : ZT_INPUT_READY; /* an error shows when it is read */
}
