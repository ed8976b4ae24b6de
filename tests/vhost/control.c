/* SPDX-License-Identifier: MIT */
#include "control.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

char text[TEXT_MAX];

int ctl(const struct front *f, const char *words)
{
    char command[512];
    FILE *p;
    size_t n;
    int status;

    snprintf(command, sizeof(command), "%s serve ctl %s %s 2>&1", getenv("ZQCOW2_TOOL"), f->ctl,
             words);
    p = popen(command, "r");
    assert_non_null(p);
    n = fread(text, 1, sizeof(text) - 1, p);
    text[n] = '\0';
    status = pclose(p);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void expect(const struct front *f, const char *words, const char *message)
{
    char wanted[512];

    if (ctl(f, words) != (*message ? 1 : 0))
        fail_msg("serve ctl %s: %s", words, text);
    wanted[0] = '\0';
    if (*message)
        snprintf(wanted, sizeof(wanted), "zqcow2: %s: %s\n", f->ctl, message);
    assert_string_equal(text, wanted);
}

int dial(const struct front *f)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(a.sun_path, sizeof(a.sun_path), "%s", f->ctl);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

const char *raw(const struct front *f, const void *bytes, size_t n)
{
    int fd = dial(f);
    size_t got = 0;
    ssize_t r = 1;

    while (n) {
        ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);

        if (sent < 0)
            break;
        bytes = (const char *)bytes + sent;
        n -= (size_t)sent;
    }
    while (r > 0 && got < sizeof(text) - 1) {
        r = recv(fd, text + got, sizeof(text) - 1 - got, 0);
        got += r > 0 ? (size_t)r : 0;
    }
    text[got] = '\0';
    close(fd);
    return text;
}

uint64_t number(const char *name)
{
    const char *at = strstr(text, name);

    if (!at)
        fail_msg("no %s in: %s", name, text);
    at += strlen(name);
    return strtoull(at + strspn(at, "\": "), NULL, 10);
}
