// Burns CPU time in three functions, 70, 20 and 10 % of it, until SIGTERM; then prints how many nanoseconds each had.
// Turns differ in length, so that they do not keep step with a sampling timer.
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

static volatile sig_atomic_t stop;
static volatile uint64_t sink;

static void on_term(int signal) {
    (void)signal;
    stop = 1;
}

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

// Each multiplication waits for the last: time is proportional to the rounds.
static inline __attribute__((always_inline)) void churn(uint64_t rounds) {
    uint64_t state = sink | 1;
    for (uint64_t i = 0; i < rounds; i++) {
        state *= 0x5851f42d4c957f2du;
        state ^= state >> 29;
    }
    sink = state;
}

__attribute__((noinline)) void spin_seventy(uint64_t unit) { churn(70 * unit); }
__attribute__((noinline)) void spin_twenty(uint64_t unit) { churn(20 * unit); }
__attribute__((noinline)) void spin_ten(uint64_t unit) { churn(10 * unit); }

int main(void) {
    signal(SIGTERM, on_term);
    uint64_t spent[3] = {0, 0, 0};
    while (!stop) {
        uint64_t unit = 2000 + sink % 4000;
        uint64_t a = now();
        spin_seventy(unit);
        uint64_t b = now();
        spin_twenty(unit);
        uint64_t c = now();
        spin_ten(unit);
        uint64_t d = now();
        spent[0] += b - a;
        spent[1] += c - b;
        spent[2] += d - c;
    }
    printf("spin_seventy %lu\nspin_twenty %lu\nspin_ten %lu\n", spent[0], spent[1], spent[2]);
    return 0;
}
