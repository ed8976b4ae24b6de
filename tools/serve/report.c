/* SPDX-License-Identifier: MIT */
/* Starting a server, and both ends of the pipe over which it reports that it is ready. */
#include "serve/report.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "serve/geometry.h"

/* ---- the server's end ---- */

void serve_report_failure(struct serve_report *r, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    dprintf(r->fd, "-");
    vdprintf(r->fd, fmt, ap);
    dprintf(r->fd, "\n");
    va_end(ap);
    close(r->fd);
    r->fd = -1;
}

void serve_report_ready(struct serve_report *r, const char *endpoint,
                        const struct zqcow2_info *info, bool read_only, uint32_t append)
{
    FILE *out = fdopen(r->fd, "w");

    if (out) {
        fputc('+', out);
        zt_put(out, endpoint);
        fputc('\n', out);
        serve_put_geometry(out, info, read_only, append);
        fclose(out);
    } else {
        close(r->fd);
    }
    r->fd = -1;
}

/* ---- the command's end ---- */

/* Prints the server's one report; its exit status. */
static int print_report(int fd)
{
    FILE *f = fdopen(fd, "r");
    char line[PATH_MAX + 512];
    int mark = f ? getc(f) : EOF;
    size_t n = mark == '-' ? fread(line, 1, sizeof(line) - 1, f) : 0;

    if (mark == EOF)
        zt_error("the server ended before the device was ready");
    if (mark == '-') { /* one line, though a file's name may hold more */
        line[n ? n - 1 : 0] = '\0';
        zt_error("%s", line);
    }
    while (mark == '+' && fgets(line, sizeof(line), f))
        fputs(line, stdout);
    if (f)
        fclose(f);
    fflush(stdout);
    return mark == '+' ? 0 : 1;
}

/* A caller that waits for the end of the command's output must not wait for the server's end. */
static void leave_streams(void)
{
    int fd = open("/dev/null", O_RDWR);

    if (fd < 0)
        return;
    dup2(fd, STDIN_FILENO);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
}

static void wait_for(pid_t pid)
{
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}

/* The report is printed before the command ends, even if that is why it ends. */
static int run_foreground(serve_main *server, const void *arg, struct serve_report *report,
                          pid_t printer)
{
    int status = server(arg, report);

    if (report->fd >= 0)
        close(report->fd);
    wait_for(printer);
    return status;
}

/*
 * In the background the server is the child. In the foreground it is the process itself, so that
 * its parent's signals reach it, and the child prints; a report is far smaller than a pipe, so the
 * server never waits for that.
 */
int serve_launch(bool foreground, serve_main *server, const void *arg)
{
    struct serve_report report;
    int p[2];
    pid_t pid;

    if (pipe2(p, O_CLOEXEC) || (pid = fork()) < 0) {
        zt_error("cannot start a server: %s", strerror(errno));
        return 1;
    }
    report.fd = p[1];
    if ((pid != 0) != foreground) { /* this process prints */
        int status;

        close(p[1]);
        status = print_report(p[0]);
        if (!pid)
            _exit(status);
        if (status) /* it has let go of the image when the command says that it failed */
            wait_for(pid);
        return status;
    }
    close(p[0]);
    if (foreground)
        return run_foreground(server, arg, &report, pid);
    setsid();
    leave_streams();
    _exit(server(arg, &report));
}
