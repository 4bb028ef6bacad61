// Two threads named alpha and beta, which burn CPU time in functions of their own; until killed.
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>

static volatile uint64_t sinks[2];

static inline __attribute__((always_inline)) void burn(volatile uint64_t *sink) {
    for (;;) {
        *sink = *sink * 0x5851f42d4c957f2du + 1;
    }
}

__attribute__((noinline)) void *burn_alpha(void *unused) {
    (void)unused;
    pthread_setname_np(pthread_self(), "alpha");
    burn(&sinks[0]);
    return 0;
}

__attribute__((noinline)) void *burn_beta(void *unused) {
    (void)unused;
    pthread_setname_np(pthread_self(), "beta");
    burn(&sinks[1]);
    return 0;
}

int main(void) {
    pthread_t alpha, beta;
    pthread_create(&alpha, 0, burn_alpha, 0);
    pthread_create(&beta, 0, burn_beta, 0);
    pthread_join(alpha, 0);
    return 0;
}
