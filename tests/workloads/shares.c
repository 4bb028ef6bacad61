// Burns CPU time in three functions, 70, 20 and 10 % of it, until SIGTERM; then prints how many rounds each has done. It is
// rounds, not nanoseconds, since clocks go on while others, or a hypervisor, have the CPU, and no sample is taken then.
// Turns differ in length, so that they do not keep step with a sampling timer.
#include <signal.h>
#include <stdint.h>
#include <stdio.h>

static volatile sig_atomic_t stop;
static volatile uint64_t sink;

static void on_term(int signal) {
    (void)signal;
    stop = 1;
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
    uint64_t units = 0;
    while (!stop) {
        uint64_t unit = 2000 + sink % 4000;
        spin_seventy(unit);
        spin_twenty(unit);
        spin_ten(unit);
        units += unit;
    }
    printf("spin_seventy %lu\nspin_twenty %lu\nspin_ten %lu\n", 70 * units, 20 * units, 10 * units);
    return 0;
}
