// options: -O2 -g -fomit-frame-pointer -fno-optimize-sibling-calls -pthread
// Spends its time in functions that each wait in one way, and keeps account of it.
// usage: waits mix [MILLISECONDS] | sync FILE   until then, or SIGTERM; then prints how many nanoseconds each function had
//        waits queue MILLISECONDS         two threads that spin on one CPU; then prints each thread's schedstat and how long it lived until then
//        waits churn MILLISECONDS         short-lived threads, forks, vforks and execs without pause
//        waits poll PATH                  asks over a Unix socket, and waits in poll, select and epoll, and until a set time
//        waits hang                       waits for a pipe that nobody writes to
//        waits spin                       spins
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))

static volatile sig_atomic_t stop;
static volatile uint64_t sink;
static uint64_t milliseconds;

static void on_term(int signal) {
    (void)signal;
    stop = 1;
}

static uint64_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void nap(long microseconds) {
    struct timespec t = {0, microseconds * 1000};
    nanosleep(&t, 0);
}

static void name(const char *name) { prctl(PR_SET_NAME, name); }

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int requests[2], answers[2];

// Each of the four for some milliseconds.
NOINLINE void burns(void) {
    uint64_t start = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    while (clock_ns(CLOCK_THREAD_CPUTIME_ID) - start < 3000000) {
        for (int i = 0; i < 20000; i++) {
            sink = sink * 0x5851f42d4c957f2du + 1;
        }
    }
}

NOINLINE void naps(void) { nap(4000); }

NOINLINE void reads(void) {
    char byte = 'r';
    if (write(requests[1], &byte, 1) != 1 || read(answers[0], &byte, 1) != 1) {
        _exit(1);
    }
}

NOINLINE void asks_for_holder(void) {
    char byte = 'l';
    if (write(requests[1], &byte, 1) != 1 || read(answers[0], &byte, 1) != 1) {
        _exit(1);
    }
}

NOINLINE void locks(void) {
    pthread_mutex_lock(&mutex);
    sink++;
    pthread_mutex_unlock(&mutex);
}

NOINLINE void answers_reader(void) {
    char byte = 'a';
    nap(2000);
    if (write(answers[1], &byte, 1) != 1) {
        _exit(1);
    }
}

NOINLINE void holds_lock(void) {
    char byte = 'h';
    pthread_mutex_lock(&mutex);
    if (write(answers[1], &byte, 1) != 1) {
        _exit(1);
    }
    nap(2000);
    pthread_mutex_unlock(&mutex);
}

static void *helps(void *unused) {
    name("helper");
    char byte;
    while (read(requests[0], &byte, 1) == 1) {
        if (byte == 'r') {
            answers_reader();
        } else {
            holds_lock();
        }
    }
    return unused;
}

static int mixes(void) {
    pthread_t helper;
    if (pipe(requests) || pipe(answers) || pthread_create(&helper, 0, helps, 0)) {
        return 1;
    }
    name("mixer");
    const char *names[5] = {"burns", "naps", "reads", "asks_for_holder", "locks"};
    void (*functions[5])(void) = {burns, naps, reads, asks_for_holder, locks};
    uint64_t spent[5] = {0};
    uint64_t last = clock_ns(CLOCK_MONOTONIC);
    uint64_t start = last;
    while (!stop && last - start < milliseconds * 1000000) {
        for (int i = 0; i < 5; i++) {
            functions[i]();
            uint64_t now = clock_ns(CLOCK_MONOTONIC);
            spent[i] += now - last;
            last = now;
        }
    }
    for (int i = 0; i < 5; i++) {
        printf("%s %lu\n", names[i], spent[i]);
    }
    return 0;
}

NOINLINE void syncs(int file) {
    static char block[4096];
    if (pwrite(file, block, sizeof block, 0) != sizeof block || fsync(file)) {
        _exit(1);
    }
}

static int keeps_syncing(const char *path) {
    int file = open(path, O_CREAT | O_RDWR, 0600);
    if (file < 0) {
        return 1;
    }
    uint64_t start = clock_ns(CLOCK_MONOTONIC);
    while (!stop) {
        syncs(file);
    }
    printf("syncs %lu\n", clock_ns(CLOCK_MONOTONIC) - start);
    return 0;
}

static void *spins(void *thread) {
    name(thread ? "second" : "first");
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(0, &cpus);
    sched_setaffinity(0, sizeof cpus, &cpus);
    uint64_t start = clock_ns(CLOCK_MONOTONIC);
    while (clock_ns(CLOCK_MONOTONIC) - start < milliseconds * 1000000) {
        for (int i = 0; i < 20000; i++) {
            sink = sink * 0x5851f42d4c957f2du + 1;
        }
    }
    char path[64], text[128];
    long tid = syscall(SYS_gettid);
    snprintf(path, sizeof path, "/proc/self/task/%ld/schedstat", tid);
    FILE *file = fopen(path, "r");
    if (file && fgets(text, sizeof text, file)) {
        text[strcspn(text, "\n")] = 0;
        printf("schedstat %ld %s %lu\n", tid, text, clock_ns(CLOCK_MONOTONIC) - start);
    }
    return 0;
}

static int asking, epoll;

NOINLINE void polls(void) {
    struct pollfd one = {asking, POLLIN, 0};
    poll(&one, 1, -1);
}

NOINLINE void selects(void) {
    fd_set set;
    FD_ZERO(&set);
    FD_SET(asking, &set);
    select(asking + 1, &set, 0, 0, 0);
}

NOINLINE void awaits_event(void) {
    struct epoll_event event;
    epoll_wait(epoll, &event, 1, -1);
}

NOINLINE void polls_several(void) {
    struct pollfd two[2] = {{asking, POLLIN, 0}, {0, 0, 0}};
    poll(two, 2, -1);
}

NOINLINE void keeps_pace(void) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += 3000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, 0);
}

static void *answers_slowly(void *listener) {
    char byte;
    int socket = accept((int)(intptr_t)listener, 0, 0);
    while (read(socket, &byte, 1) == 1) {
        nap(3000);
        if (write(socket, &byte, 1) != 1) {
            break;
        }
    }
    return 0;
}

static int asks_in_all_ways(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    asking = socket(AF_UNIX, SOCK_STREAM, 0);
    epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN};
    pthread_t server;
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1) ||
        pthread_create(&server, 0, answers_slowly, (void *)(intptr_t)listener) ||
        connect(asking, (struct sockaddr *)&address, sizeof address) ||
        epoll_ctl(epoll, EPOLL_CTL_ADD, asking, &event)) {
        return 1;
    }
    name("asker");
    void (*ways[4])(void) = {polls, selects, awaits_event, polls_several};
    char byte = 'a';
    for (unsigned i = 0; !stop; i++) {
        if (write(asking, &byte, 1) != 1) {
            return 1;
        }
        ways[i % 4]();
        if (read(asking, &byte, 1) != 1) {
            return 1;
        }
        keeps_pace();
    }
    return 0;
}

static int queues(void) {
    pthread_t threads[2];
    for (long i = 0; i < 2; i++) {
        pthread_create(&threads[i], 0, spins, (void *)i);
    }
    pthread_join(threads[0], 0);
    pthread_join(threads[1], 0);
    return 0;
}

static void *lives_briefly(void *unused) {
    nap(200);
    return unused;
}

// A thread that is not the first runs a new program.
static void *executes(void *unused) {
    execl("/bin/true", "true", (char *)0);
    return unused;
}

static int churns(void) {
    uint64_t start = clock_ns(CLOCK_MONOTONIC);
    while (clock_ns(CLOCK_MONOTONIC) - start < milliseconds * 1000000) {
        pthread_t thread;
        if (pthread_create(&thread, 0, lives_briefly, 0) == 0) {
            pthread_join(thread, 0);
        }
        pid_t child = fork();
        if (child == 0) {
            nap(100);
            pthread_create(&thread, 0, executes, 0);
            pthread_join(thread, 0);
            _exit(1);
        }
        waitpid(child, 0, 0);
        child = vfork();
        if (child == 0) {
            execl("/bin/true", "true", (char *)0);
            _exit(1);
        }
        waitpid(child, 0, 0);
    }
    return 0;
}

NOINLINE void hangs(void) {
    int ends[2];
    char byte;
    if (pipe(ends) == 0 && read(ends[0], &byte, 1) == 1) {
        sink++;
    }
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    milliseconds = argc > 2 ? strtoul(argv[2], 0, 10) : 3600000;
    if (!strcmp(mode, "mix") || !strcmp(mode, "sync")) {
        struct sigaction action = {.sa_handler = on_term, .sa_flags = SA_RESTART};
        sigaction(SIGTERM, &action, 0);
    }
    if (!strcmp(mode, "mix")) {
        return mixes();
    } else if (!strcmp(mode, "sync") && argc > 2) {
        return keeps_syncing(argv[2]);
    } else if (!strcmp(mode, "poll") && argc > 2) {
        return asks_in_all_ways(argv[2]);
    } else if (!strcmp(mode, "queue")) {
        return queues();
    } else if (!strcmp(mode, "churn")) {
        return churns();
    } else if (!strcmp(mode, "hang")) {
        hangs();
    } else if (!strcmp(mode, "spin")) {
        for (;;) {
            sink = sink * 0x5851f42d4c957f2du + 1;
        }
    }
    return 2;
}
