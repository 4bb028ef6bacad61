// What every program of the suite of bottlenecks does: it says "begun" when it works, counts its work, also that of its children, and
// at SIGTERM prints how much it was, "work N", and how long it took, "ns N".
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone, unused))
#define INLINE static inline __attribute__((always_inline, unused))

static _Atomic uint64_t *work;
static uint64_t begun_ns;

__attribute__((unused)) static void check(int good, const char *what) {
    if (!good) {
        perror(what);
        _exit(1);
    }
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void tell(int signal) {
    (void)signal;
    char text[96];
    int length = snprintf(text, sizeof text, "work %lu\nns %lu\n", atomic_load(work), now_ns() - begun_ns);
    _exit(write(1, text, length) != length);
}

// Before there are threads or children.
static void prepare(void) {
    work = mmap(0, sizeof *work, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(work != MAP_FAILED, "mmap");
    signal(SIGPIPE, SIG_IGN);
}

// From now on work is counted.
static void begin(void) {
    begun_ns = now_ns();
    atomic_store(work, 0);
    signal(SIGTERM, tell);
    check(write(1, "begun\n", 6) == 6, "write");
}

INLINE void did(uint64_t units) { atomic_fetch_add_explicit(work, units, memory_order_relaxed); }

__attribute__((unused)) static void name(const char *name) { prctl(PR_SET_NAME, name); }

__attribute__((unused)) static void nap(long microseconds) {
    struct timespec t = {microseconds / 1000000, microseconds % 1000000 * 1000};
    nanosleep(&t, 0);
}

// CPU time, in rounds that each wait for the last: about so many microseconds of a CPU at 3 GHz.
INLINE void burn(long microseconds) {
    uint64_t state = 1;
    for (long i = microseconds * 700; i > 0; i--) {
        state = state * 0x5851f42d4c957f2du + 1;
        __asm__ volatile("" : "+r"(state));
    }
}

__attribute__((unused)) static pthread_t start(void *(*function)(void *), void *argument) {
    pthread_t thread;
    check(pthread_create(&thread, 0, function, argument) == 0, "pthread_create");
    return thread;
}

// A child that ends with this process.
__attribute__((unused)) static pid_t fork_child(void) {
    pid_t child = fork();
    if (child == 0) {
        signal(SIGTERM, SIG_DFL);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    }
    return child;
}

// An argument that is a number.
__attribute__((unused)) static long number(int count, char **arguments, int at) {
    if (at >= count) {
        fprintf(stderr, "argument %d is missing\n", at);
        _exit(2);
    }
    return atol(arguments[at]);
}

__attribute__((unused)) static long cpus(void) { return sysconf(_SC_NPROCESSORS_ONLN); }
