/* SPDX-License-Identifier: MIT */
/*
 * A main() for any compiler: runs the files given, and those in the folders given, then so many
 * mutations of each.
 *
 *     -m N   mutations of each input (20)
 *     -s N   the first of their numbers (1)
 *     -p     print the inputs instead
 *
 * What runs when the program dies is written to the file "failed" in the working directory.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz/target.h"

#define ROOM (1u << 16)

/* Those that a target or a sanitizer may have. */
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed)
    __attribute__((weak));
void __sanitizer_set_death_callback(void (*fn)(void)) __attribute__((weak));

static uint8_t data[ROOM];
static size_t size;
static unsigned long long mutations = 20, first = 1, runs;
static bool print;
static uint64_t rng;

size_t LLVMFuzzerMutate(uint8_t *d, size_t n, size_t room)
{
    size_t at = n ? fields_rng(&rng) % n : 0;

    switch (fields_rng(&rng) % 4) {
    case 0:
        if (n < room) {
            memmove(d + at + 1, d + at, n - at);
            d[at] = (uint8_t)fields_rng(&rng);
            return n + 1;
        }
        break;
    case 1:
        if (n > 1) {
            memmove(d + at, d + at + 1, n - at - 1);
            return n - 1;
        }
        break;
    case 2:
        if (n)
            d[at] = (uint8_t)fields_rng(&rng);
        break;
    default:
        if (n)
            d[at] ^= (uint8_t)(1u << fields_rng(&rng) % 8);
    }
    return n;
}

static void save(void)
{
    int fd = open("failed", O_WRONLY | O_CREAT | O_TRUNC, 0666);

    if (fd >= 0 && write(fd, data, size) == (ssize_t)size)
        (void)!write(2, "the input is in the file \"failed\"\n", 34);
    close(fd);
}

static void on_signal(int sig)
{
    save();
    signal(sig, SIG_DFL);
    raise(sig);
}

static void one(const char *path)
{
    unsigned long long seed = first;
    struct input in;
    FILE *f = fopen(path, "rb");

    if (!f) {
        perror(path);
        exit(2);
    }
    size = fread(data, 1, sizeof(data), f);
    fclose(f);
    input_parse(&in, data, size);
    if (print) {
        printf("%s: ", path);
        input_print(&in);
        return;
    }
    for (unsigned long long i = 0;; i++, seed++) {
        LLVMFuzzerTestOneInput(data, size);
        runs++;
        if (i == mutations)
            break;
        rng = (seed + runs) * 0xd6e8feb86659fd93ull + 1;
        size = LLVMFuzzerCustomMutator ? LLVMFuzzerCustomMutator(data, size, ROOM, (unsigned)rng) :
                                         LLVMFuzzerMutate(data, size, ROOM);
    }
}

static void each(const char *path)
{
    struct dirent **list;
    struct stat st;
    int n;

    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)) {
        one(path);
        return;
    }
    n = scandir(path, &list, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char *name;

        if (list[i]->d_name[0] != '.' && asprintf(&name, "%s/%s", path, list[i]->d_name) > 0) {
            each(name);
            free(name);
        }
        free(list[i]);
    }
    if (n >= 0)
        free(list);
}

int main(int argc, char **argv)
{
    int c;

    while ((c = getopt(argc, argv, "m:s:p")) != -1) {
        switch (c) {
        case 'm': mutations = strtoull(optarg, NULL, 0); break;
        case 's': first = strtoull(optarg, NULL, 0); break;
        case 'p': print = true; break;
        default: return 2;
        }
    }
    if (LLVMFuzzerInitialize)
        LLVMFuzzerInitialize(&argc, &argv);
    if (__sanitizer_set_death_callback)
        __sanitizer_set_death_callback(save);
    signal(SIGABRT, on_signal);
    signal(SIGSEGV, on_signal);
    for (int i = optind; i < argc; i++)
        each(argv[i]);
    if (!print)
        printf("fuzz, %s: %llu executions\n",
               strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0], runs);
    return runs || print ? 0 : 1;
}
