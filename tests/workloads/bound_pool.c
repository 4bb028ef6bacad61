// options: -O2 -g -fomit-frame-pointer -fno-optimize-sibling-calls -pthread
// Handlers of requests that share a pool which may be too small. What they ask, a server elsewhere, could do more at once.
// usage: bound_pool threads PORT HANDLERS SIZE       handlers give jobs to a pool of threads, which ask the server
//        bound_pool disk FILE HANDLERS SIZE         the same, and the threads read a device past the page cache
//        bound_pool connections PORT HANDLERS SIZE   handlers borrow connections from a pool, and ask the server themselves
#include "work.h"
#include "tcp.h"

static long port;
static int device;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

struct job {
    struct job *next;
    pthread_cond_t finished;
    int is_finished;
};

static pthread_cond_t submitted = PTHREAD_COND_INITIALIZER;
static struct job *first, **last = &first;

NOINLINE void prepare_request(void) { burn(100); }

NOINLINE void submit_and_wait(struct job *job) {
    pthread_mutex_lock(&mutex);
    job->next = 0;
    job->is_finished = 0;
    *last = job;
    last = &job->next;
    pthread_cond_signal(&submitted);
    while (!job->is_finished) {
        pthread_cond_wait(&job->finished, &mutex);
    }
    pthread_mutex_unlock(&mutex);
}

NOINLINE void run_job(int connection) { ask(connection); }

#define PAGE 4096

NOINLINE void read_record(char *page) {
    static _Atomic long next;
    long at = (next++ % 4096) * PAGE;
    check(pread(device, page, PAGE, at) == PAGE, "pread");
}

static void *works(void *unused) {
    int connection = device ? -1 : connect_to(port);
    char *page;
    check(!posix_memalign((void **)&page, PAGE, PAGE), "posix_memalign");
    for (;;) {
        pthread_mutex_lock(&mutex);
        while (!first) {
            pthread_cond_wait(&submitted, &mutex);
        }
        struct job *job = first;
        first = job->next;
        if (!first) {
            last = &first;
        }
        pthread_mutex_unlock(&mutex);
        if (device) {
            read_record(page);
        } else {
            run_job(connection);
        }
        pthread_mutex_lock(&mutex);
        job->is_finished = 1;
        pthread_cond_signal(&job->finished);
        pthread_mutex_unlock(&mutex);
    }
    return unused;
}

static void *handles_by_threads(void *unused) {
    struct job job = {.finished = PTHREAD_COND_INITIALIZER};
    for (;;) {
        prepare_request();
        submit_and_wait(&job);
        did(1);
    }
    return unused;
}

static pthread_cond_t returned = PTHREAD_COND_INITIALIZER;
static int *connections, available;

NOINLINE int borrow_connection(void) {
    pthread_mutex_lock(&mutex);
    while (!available) {
        pthread_cond_wait(&returned, &mutex);
    }
    int connection = connections[--available];
    pthread_mutex_unlock(&mutex);
    return connection;
}

static void return_connection(int connection) {
    pthread_mutex_lock(&mutex);
    connections[available++] = connection;
    pthread_cond_signal(&returned);
    pthread_mutex_unlock(&mutex);
}

static void *handles_by_connections(void *unused) {
    for (;;) {
        prepare_request();
        int connection = borrow_connection();
        ask(connection);
        return_connection(connection);
        did(1);
    }
    return unused;
}

int main(int count, char **arguments) {
    prepare();
    const char *mode = count > 1 ? arguments[1] : "";
    if (!strcmp(mode, "disk")) {
        device = open(arguments[2], O_RDONLY | O_DIRECT);
        check(device > 0, "open");
    } else {
        port = number(count, arguments, 2);
    }
    long handlers = number(count, arguments, 3), size = number(count, arguments, 4);
    name("app");
    void *(*handles)(void *) = handles_by_threads;
    if (!strcmp(mode, "threads") || device) {
        for (long i = 0; i < size; i++) {
            start(works, 0);
        }
    } else {
        handles = handles_by_connections;
        connections = calloc(size, sizeof *connections);
        for (available = 0; available < size; available++) {
            connections[available] = connect_to(port);
        }
    }
    begin();
    for (long i = 1; i < handlers; i++) {
        start(handles, 0);
    }
    handles(0);
    return 2;
}
