/* SPDX-License-Identifier: MIT */
/*
 * The command zqcow2 without its process. The first byte chooses an image; the rest is text, of
 * which each line is a command of the verb io or, after "!", a verb with its operands, where @ is
 * the image. Words are also given to the parsers of numbers, and the text to what prints the names
 * of files.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz/target.h"
#include "tool.h"

#define WORDS 16
#define LINES 16
#define LARGE (8ull << 20) /* buffers of that size are the user's wish, and take their time */

void __sanitizer_set_report_fd(void *fd) __attribute__((weak));

extern const struct zt_verb zt_verb_io, zt_verb_info, zt_verb_report, zt_verb_map, zt_verb_open,
    zt_verb_close, zt_verb_finish, zt_verb_reset, zt_verb_check, zt_verb_upgrade, zt_verb_read,
    zt_verb_write, zt_verb_append, zt_verb_create;

static const struct zt_verb *const verbs[] = {
    &zt_verb_info,   &zt_verb_report, &zt_verb_map,   &zt_verb_open,    &zt_verb_close,
    &zt_verb_finish, &zt_verb_reset,  &zt_verb_check, &zt_verb_upgrade, &zt_verb_read,
    &zt_verb_write,  &zt_verb_append, &zt_verb_create};

static int image = -1;
static char path[64];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    seeds_make();
    image = memfd_create("fuzz", 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", image);
    if (image < 0)
        fuzz_fail("no file in memory");
    return 0;
}

/* ---- the parsers by themselves ---- */

static void parse_word(const char *word)
{
    size_t digits = strspn(word, "0123456789");
    uint64_t a = 0, b = 0;
    bool u64 = zt_parse_u64(word, &a), size = zt_parse_size(word, &b);

    if (digits && !word[digits] && digits < 19 && word[0] != '0' &&
        (!u64 || !size || a != strtoull(word, NULL, 10) || a != b))
        fuzz_fail("\"%s\" is %llu and %llu", word, (unsigned long long)a, (unsigned long long)b);
    if ((u64 || size) && (word[0] < '0' || word[0] > '9'))
        fuzz_fail("\"%s\" is a number", word);
}

static void print_text(const char *text)
{
    char *out = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&out, &n);

    if (!f)
        fuzz_fail("no stream");
    zt_put(f, text);
    fclose(f);
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)out[i] < 0x20 || out[i] == 0x7f)
            fuzz_fail("byte 0x%02x is printed as it is", out[i]);
    }
    free(out);
}

/* ---- what would only take time, or reach other files ---- */

static bool large_word(const char *word)
{
    char *copy = strdup(word), *save = NULL;
    bool large = false;

    for (char *w = strtok_r(copy, "=,-", &save); w && !large; w = strtok_r(NULL, "=,-", &save)) {
        w += strcspn(w, "0123456789");
        for (size_t len = strlen(w); len; w[--len] = '\0') {
            uint64_t v;

            large |= zt_parse_size(w, &v) && v > LARGE;
        }
    }
    free(copy);
    return large;
}

static bool harmless(const char *line)
{
    char *copy = strdup(line), *save = NULL;
    bool ok = !strchr(line, '/') && !strstr(line, "..");
    bool from_file = strchr(line, 'w') && strchr(line, 's');

    for (char *w = strtok_r(copy, " \t\r", &save); w; w = strtok_r(NULL, " \t\r", &save)) {
        parse_word(w);
        ok = ok && !large_word(w) && !(from_file && w[0] == '-' && strchr(w, 's'));
    }
    free(copy);
    return ok;
}

/* ---- running ---- */

static void fill_image(uint8_t number)
{
    const struct seed *s = &fuzz_seeds[number % fuzz_nr_seeds];

    if (ftruncate(image, 0) != 0 || pwrite(image, s->bytes.b, s->bytes.len, 0) < 0)
        fuzz_fail("the image cannot be written");
}

static void run_verb(char *line)
{
    char *words[WORDS + 2], *save = NULL;
    int n = 0;

    for (char *w = strtok_r(line, " \t\r", &save); w && n < WORDS;
         w = strtok_r(NULL, " \t\r", &save))
        words[n++] = strcmp(w, "@") ? w : path;
    words[n] = NULL;
    for (size_t i = 0; n && i < ZT_COUNT(verbs); i++) {
        /* Without an image of ours another file would be made or read. */
        if (strcmp(verbs[i]->name, words[0]) != 0 || words[n - 1] != path)
            continue;
        for (int k = 1; k < n - 1; k++) {
            if (words[k][0] != '-')
                return;
        }
        optind = 0;
        (void)verbs[i]->run(n, words);
    }
}

static void run_io(char **lines, int n)
{
    char *argv[2 * LINES + 4] = {(char *)"io"};
    int argc = 1;

    for (int i = 0; i < n; i++) {
        argv[argc++] = (char *)"-c";
        argv[argc++] = lines[i];
    }
    argv[argc++] = path;
    optind = 0;
    if (n)
        (void)zt_verb_io.run(argc, argv);
}

static void run_text(char *text)
{
    char *lines[LINES], *save = NULL;
    int n = 0;

    for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
        if (!harmless(l))
            continue;
        if (l[0] == '!')
            run_verb(l + 1);
        else if (n < LINES)
            lines[n++] = l;
    }
    run_io(lines, n);
}

/* Standard streams lead nowhere meanwhile; a sanitizer's report keeps its way. */
static void quietly(char *text)
{
    int nowhere = open("/dev/null", O_RDWR), kept[3];

    fflush(NULL);
    for (int i = 0; i < 3; i++) {
        kept[i] = fcntl(i, F_DUPFD_CLOEXEC, 10);
        dup2(nowhere, i);
    }
    if (__sanitizer_set_report_fd)
        __sanitizer_set_report_fd((void *)(intptr_t)kept[2]);
    run_text(text);
    fflush(NULL);
    for (int i = 0; i < 3; i++) {
        if (kept[i] >= 0)
            dup2(kept[i], i);
        close(kept[i]);
    }
    if (__sanitizer_set_report_fd)
        __sanitizer_set_report_fd((void *)2);
    close(nowhere);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = calloc(1, size + 1);

    if (!text)
        fuzz_fail("no memory");
    if (size)
        memcpy(text, data + 1, size - 1);
    print_text(text);
    fill_image(size ? data[0] : 0);
    quietly(text);
    free(text);
    return 0;
}
