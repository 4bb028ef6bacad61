// options: -O2 -g -fomit-frame-pointer -fno-optimize-sibling-calls -pthread
// Programs that nothing is wrong with.
// usage: decoy sleepers INTERVAL_MS               threads that each wait in another way, and do a little now and then
//        decoy service PER_SECOND                 a pool of threads that does so many jobs a second, with a lock and a log
//        decoy load PORT PER_SECOND               sends so many requests a second to a server, on connections of its own
#include "work.h"
#include "tcp.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>

static long interval_ms;

NOINLINE void look_around(void) { burn(20); }

static void *naps(void *unused) {
    for (;;) {
        nap(interval_ms * 1000);
        look_around();
        did(1);
    }
    return unused;
}

static void *waits_for_condition(void *unused) {
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t never = PTHREAD_COND_INITIALIZER;
    for (;;) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += interval_ms % 1000 * 1000000;
        until.tv_sec += interval_ms / 1000 + until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_mutex_lock(&mutex);
        pthread_cond_timedwait(&never, &mutex, &until);
        pthread_mutex_unlock(&mutex);
        look_around();
        did(1);
    }
    return unused;
}

static void *polls(void *unused) {
    for (;;) {
        poll(0, 0, interval_ms);
        look_around();
        did(1);
    }
    return unused;
}

static void *waits_for_events(void *unused) {
    int epoll = epoll_create1(0);
    struct epoll_event event;
    for (;;) {
        epoll_wait(epoll, &event, 1, interval_ms);
        look_around();
        did(1);
    }
    return unused;
}

// For what never comes.
static void *waits_for_work(void *unused) {
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static pthread_cond_t work_is_there = PTHREAD_COND_INITIALIZER;
    pthread_mutex_lock(&mutex);
    for (;;) {
        pthread_cond_wait(&work_is_there, &mutex);
    }
    return unused;
}

static void *accepts(void *unused) {
    accept(listen_on(0, 16), 0, 0);
    return unused;
}

static void *reads_pipe(void *unused) {
    int ends[2];
    char byte;
    check(!pipe(ends) && read(ends[0], &byte, 1) >= 0, "pipe");
    return unused;
}

static long port, per_second, due_ns;
static pthread_mutex_t schedule = PTHREAD_MUTEX_INITIALIZER;

// The next request of all that are due at equal distances, whether the last were answered or not.
static void await_turn(void) {
    pthread_mutex_lock(&schedule);
    long due = due_ns += 1000000000 / per_second;
    pthread_mutex_unlock(&schedule);
    struct timespec until = {due / 1000000000, due % 1000000000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, 0);
}

static void *sends_requests(void *unused) {
    int connection = connect_to(port);
    for (;;) {
        await_turn();
        ask(connection);
        did(1);
    }
    return unused;
}

static pthread_mutex_t queue = PTHREAD_MUTEX_INITIALIZER, statistics = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t queued = PTHREAD_COND_INITIALIZER;
static long jobs;

NOINLINE void do_job(void) { burn(300); }
NOINLINE void count_job(void) { burn(2); }

static void *does_jobs(void *log) {
    for (;;) {
        pthread_mutex_lock(&queue);
        while (!jobs) {
            pthread_cond_wait(&queued, &queue);
        }
        jobs--;
        pthread_mutex_unlock(&queue);
        do_job();
        pthread_mutex_lock(&statistics);
        count_job();
        pthread_mutex_unlock(&statistics);
        check(write((int)(intptr_t)log, "done\n", 5) == 5, "write");
        did(1);
    }
    return 0;
}

static void service(void) {
    FILE *log = tmpfile();
    check(log != 0, "tmpfile");
    begin();
    for (int i = 0; i < 8; i++) {
        start(does_jobs, (void *)(intptr_t)fileno(log));
    }
    due_ns = now_ns();
    for (;;) {
        await_turn();
        pthread_mutex_lock(&queue);
        jobs++;
        pthread_cond_signal(&queued);
        pthread_mutex_unlock(&queue);
    }
}

int main(int count, char **arguments) {
    prepare();
    const char *mode = count > 1 ? arguments[1] : "";
    if (!strcmp(mode, "sleepers")) {
        interval_ms = number(count, arguments, 2);
        begin();
        void *(*waits[])(void *) = {waits_for_condition, polls,   waits_for_events, waits_for_work,
                                    waits_for_work,      accepts, reads_pipe};
        for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
            start(waits[i], 0);
        }
        naps(0);
    } else if (!strcmp(mode, "service")) {
        per_second = number(count, arguments, 2);
        service();
    } else if (!strcmp(mode, "load")) {
        name("load");
        port = number(count, arguments, 2);
        per_second = number(count, arguments, 3);
        close(connect_to(port));
        begin();
        due_ns = now_ns();
        for (int i = 1; i < 8; i++) {
            start(sends_requests, 0);
        }
        sends_requests(0);
    }
    return 2;
}
