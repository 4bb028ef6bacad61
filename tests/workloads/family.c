// Forks children that burn CPU time for ARG milliseconds each, ARG at a time one after the other, ARG in all; then ends.
// usage: family MILLISECONDS CHILDREN
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile uint64_t sink;

__attribute__((noinline)) void burn_in_child(uint64_t milliseconds) {
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        for (int i = 0; i < 10000; i++) {
            sink = sink * 0x5851f42d4c957f2du + 1;
        }
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((uint64_t)(now.tv_sec - start.tv_sec) * 1000 + (uint64_t)(now.tv_nsec / 1000000) -
                 (uint64_t)(start.tv_nsec / 1000000) <
             milliseconds);
}

int main(int argc, char **argv) {
    uint64_t milliseconds = argc > 1 ? strtoul(argv[1], 0, 10) : 100;
    int children = argc > 2 ? atoi(argv[2]) : 1;
    for (int i = 0; i < children; i++) {
        pid_t child = fork();
        if (child == 0) {
            burn_in_child(milliseconds);
            _exit(0);
        }
        waitpid(child, 0, 0);
    }
    return 0;
}
