// Waits in three ways without a library between the waits and the functions that wait, so that frame pointers lead through every stack.
// usage: framed        until SIGTERM; then prints how many nanoseconds each function waited
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))

static volatile sig_atomic_t stop;

static void on_term(int signal) {
    (void)signal;
    stop = 1;
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

// The C library's own calls have no frame pointers.
static inline __attribute__((always_inline)) long call(long number, long a, long b, long c, long d) {
    long result;
#if defined(__x86_64__)
    register long fourth __asm__("r10") = d;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth) : "rcx", "r11", "memory");
#else
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    result = x0;
#endif
    return result;
}

NOINLINE static void naps(long milliseconds) {
    struct timespec t = {0, milliseconds * 1000000};
    call(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, (long)&t, 0);
}

NOINLINE void naps_briefly(void) { naps(2); }

NOINLINE void naps_long(void) { naps(6); }

// The other end answers each byte, after a nap of its own.
NOINLINE void reads(int answers) {
    char byte;
    call(SYS_read, answers, (long)&byte, 1, 0);
}

NOINLINE void polls(void) {
    struct timespec t = {0, 3000000};
    struct pollfd none = {-1, 0, 0};
    call(SYS_ppoll, (long)&none, 1, (long)&t, 0);
}

int main(void) {
    int requests[2], answers[2];
    if (pipe(requests) || pipe(answers)) {
        return 1;
    }
    if (fork() == 0) {
        char byte;
        close(requests[1]);
        close(answers[0]);
        while (read(requests[0], &byte, 1) == 1) {
            usleep(4000);
            if (write(answers[1], &byte, 1) != 1) {
                break;
            }
        }
        _exit(0);
    }
    close(requests[0]);
    close(answers[1]);
    struct sigaction action = {.sa_handler = on_term, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &action, 0);
    const char *names[4] = {"naps_briefly", "naps_long", "reads", "polls"};
    uint64_t spent[4] = {0};
    uint64_t last = now_ns();
    while (!stop) {
        for (int i = 0; i < 4; i++) {
            if (i == 0) {
                naps_briefly();
            } else if (i == 1) {
                naps_long();
            } else if (i == 2) {
                if (write(requests[1], "r", 1) != 1) {
                    return 1;
                }
                reads(answers[0]);
            } else {
                polls();
            }
            uint64_t now = now_ns();
            spent[i] += now - last;
            last = now;
        }
    }
    for (int i = 0; i < 4; i++) {
        printf("%s %lu\n", names[i], spent[i]);
    }
    return 0;
}
