// Does units of work, each in two functions that take the same time, and counts them in the file that it is given. With SIGUSR1 the
// second function takes twice the time, and with the next no longer. It sleeps about as long as it works, never twice the same, or samples
// would keep step with its units; and as a real-time thread it has a CPU whenever it wants one: its
// time for a unit is its own, whatever else the machine does. Each multiplication waits for the last, so that a neighbour on the same
// core takes little of it.
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t factor = 1;
static volatile uint64_t sink;

static void on_usr1(int signal) {
    (void)signal;
    factor = 3 - factor;
}

static inline __attribute__((always_inline)) void churn(uint64_t rounds) {
    uint64_t state = sink | 1;
    for (uint64_t i = 0; i < rounds; i++) {
        state *= 0x5851f42d4c957f2du;
        state ^= state >> 29;
    }
    sink = state;
}

// About a millisecond each.
__attribute__((noinline)) void parse_order(void) { churn(500000); }
__attribute__((noinline)) void price_order(int times) { churn(500000 * (uint64_t)times); }

int main(int count, char **arguments) {
    int file = count > 1 ? open(arguments[1], O_CREAT | O_WRONLY | O_TRUNC, 0644) : -1;
    if (file < 0) {
        perror("shift FILE");
        return 1;
    }
    signal(SIGUSR1, on_usr1);
    // Without the privilege it is a thread like any other.
    struct sched_param first = {.sched_priority = 1};
    sched_setscheduler(0, SCHED_FIFO, &first);
    for (uint64_t units = 0;; units++) {
        char text[32];
        int length = snprintf(text, sizeof text, "%lu\n", units);
        if (pwrite(file, text, length, 0) != length) {
            return 1;
        }
        if (units == 1) {
            printf("begun\n");
            fflush(stdout);
        }
        parse_order();
        price_order(factor);
        struct timespec nap = {.tv_nsec = 1000000 + random() % 2000000};
        nanosleep(&nap, 0);
    }
}
