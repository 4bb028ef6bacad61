// options: -O2 -g -fomit-frame-pointer -fno-optimize-sibling-calls -pthread
// Has page faults, or runs out of memory, when SIGUSR1 comes; then makes the file DONE and waits for SIGTERM. Before
// that it makes a file whose name ends in .ready instead.
// usage: memory DONE fresh PAGES [THREADS]   writes to each of so many new pages, in each thread
//        memory DONE mapped FILE             reads a byte of each page of a file that is not in memory
//        memory DONE read FILE               reads a file, whose pages the kernel keeps as long as it may
//        memory DONE grow MEGABYTES          takes so much memory
// At the end it prints what getrusage says of the time in between: minor, major; and how long that was: nanoseconds.
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))

static volatile char sink;
static long page;

static void check(int good, const char *what) {
    if (!good) {
        perror(what);
        exit(1);
    }
}

static void make(const char *path) {
    int file = open(path, O_CREAT | O_WRONLY, 0600);
    check(file >= 0, path);
    close(file);
}

static char *fresh(size_t bytes) {
    char *memory = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(memory != MAP_FAILED, "mmap");
    // A huge page would be one fault.
    madvise(memory, bytes, MADV_NOHUGEPAGE);
    return memory;
}

NOINLINE void touch_fresh_pages(char *memory, long pages) {
    for (long i = 0; i < pages; i++) {
        ((volatile char *)memory)[i * page] = 1;
    }
}

NOINLINE void touch_mapped_pages(const char *memory, long pages) {
    for (long i = 0; i < pages; i++) {
        sink = ((volatile const char *)memory)[i * page];
    }
}

NOINLINE void read_file(int file) {
    static char buffer[1 << 16];
    while (read(file, buffer, sizeof buffer) > 0) {
    }
}

struct part {
    char *memory;
    long pages;
};

static void *toucher(void *argument) {
    struct part *part = argument;
    touch_fresh_pages(part->memory, part->pages);
    return 0;
}

int main(int count, char **arguments) {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGUSR1);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, 0);
    check(count >= 4, "usage");
    page = sysconf(_SC_PAGESIZE);
    const char *how = arguments[2], *what = arguments[3];
    long pages = 0, threads = count > 4 ? atol(arguments[4]) : 1;
    char *memory = 0;
    int file = -1;
    if (!strcmp(how, "fresh")) {
        pages = atol(what);
        memory = fresh((size_t)pages * threads * page);
    } else if (!strcmp(how, "grow")) {
        pages = (atol(what) << 20) / page;
        // Whatever goes wrong, the host has that much.
        struct rlimit limit = {(rlim_t)(atol(what) + 64) << 20, (rlim_t)(atol(what) + 64) << 20};
        check(!setrlimit(RLIMIT_AS, &limit), "setrlimit");
        memory = fresh((size_t)pages * page);
    } else {
        file = open(what, O_RDONLY);
        struct stat facts;
        check(file >= 0 && !fstat(file, &facts), what);
        pages = facts.st_size / page;
        check(!fsync(file) && !posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED), "posix_fadvise");
        if (!strcmp(how, "mapped")) {
            memory = mmap(0, facts.st_size, PROT_READ, MAP_SHARED, file, 0);
            check(memory != MAP_FAILED && !madvise(memory, facts.st_size, MADV_RANDOM), "mmap");
        }
    }
    char ready[4096];
    snprintf(ready, sizeof ready - 2, "%s", arguments[1]);
    char *end_of_name = strrchr(ready, '.');
    check(end_of_name && strlen(end_of_name) == strlen(".done"), "DONE");
    memcpy(end_of_name, ".ready", sizeof ".ready");
    make(ready);
    int signal;
    sigwait(&signals, &signal);
    if (signal == SIGTERM) {
        return 0;
    }
    struct rusage before, after;
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    getrusage(RUSAGE_SELF, &before);
    if (!strcmp(how, "mapped")) {
        touch_mapped_pages(memory, pages);
    } else if (!strcmp(how, "read")) {
        read_file(file);
    } else if (threads == 1) {
        touch_fresh_pages(memory, pages);
    } else {
        pthread_t others[64];
        struct part parts[64];
        for (long i = 0; i < threads && i < 64; i++) {
            parts[i] = (struct part){memory + i * pages * page, pages};
            pthread_create(&others[i], 0, toucher, &parts[i]);
        }
        for (long i = 0; i < threads && i < 64; i++) {
            pthread_join(others[i], 0);
        }
    }
    getrusage(RUSAGE_SELF, &after);
    clock_gettime(CLOCK_MONOTONIC, &end);
    make(arguments[1]);
    do {
        sigwait(&signals, &signal);
    } while (signal != SIGTERM);
    printf("minor %ld\nmajor %ld\nnanoseconds %ld\n", after.ru_minflt - before.ru_minflt,
           after.ru_majflt - before.ru_majflt,
           (end.tv_sec - start.tv_sec) * 1000000000 + end.tv_nsec - start.tv_nsec);
    return 0;
}
