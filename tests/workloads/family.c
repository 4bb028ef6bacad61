// Forks children one after the other, each of which burns so many milliseconds of CPU time; then ends.
// usage: family MILLISECONDS CHILDREN
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile uint64_t sink;

__attribute__((noinline)) void burn_in_child(uint64_t milliseconds) {
    struct timespec used;
    do {
        for (int i = 0; i < 200000; i++) {
            sink = sink * 0x5851f42d4c957f2du + 1;
        }
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    } while ((uint64_t)used.tv_sec * 1000 + (uint64_t)(used.tv_nsec / 1000000) < milliseconds);
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
