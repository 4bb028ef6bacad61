// Burns ARG milliseconds of CPU time; then becomes the program that the further arguments name, or ends.
// usage: burst MILLISECONDS [PROGRAM ARGUMENTS...]
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static volatile uint64_t sink;

static uint64_t used_ns(void) {
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

__attribute__((noinline)) void burn_burst(uint64_t milliseconds) {
    uint64_t end = used_ns() + milliseconds * 1000000u;
    do {
        uint64_t state = sink | 1;
        for (int i = 0; i < 100000; i++) {
            state = state * 0x5851f42d4c957f2du + 1;
        }
        sink = state;
    } while (used_ns() < end);
}

int main(int argc, char **argv) {
    burn_burst(argc > 1 ? strtoul(argv[1], 0, 10) : 100);
    if (argc > 2) {
        execv(argv[2], argv + 2);
        return 127;
    }
    return 0;
}
