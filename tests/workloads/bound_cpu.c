// options: -O2 -g -fomit-frame-pointer -fno-optimize-sibling-calls -pthread
// Work that is bound by CPU time.
// usage: bound_cpu single THREADS         blocks, each thread its own
//        bound_cpu pipeline TRANSFORMERS  three stages with queues between them, the second slower than the others
//        bound_cpu background THREADS     requests on a thread for each CPU, and threads in their way
//        bound_cpu spread THREADS PERCENT threads that may run on this share of the CPUs
//        bound_cpu neighbour THREADS      what is in another process's way
//        bound_cpu kernel BYTES           64 KiB of a file in memory a unit, so many bytes a system call
#include "work.h"

NOINLINE void compress_block(void) { burn(700); }
NOINLINE void check_block(void) { burn(300); }
NOINLINE void compact_table(void) { burn(1000); }
NOINLINE void answer_request(void) { burn(500); }

static void *handles_blocks(void *unused) {
    for (;;) {
        compress_block();
        check_block();
        did(1);
    }
    return unused;
}

static void *answers_requests(void *unused) {
    for (;;) {
        answer_request();
        did(1);
    }
    return unused;
}

static void *compacts(void *unused) {
    for (;;) {
        compact_table();
    }
    return unused;
}

struct queue {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int length;
};

#define QUEUE {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0}

static struct queue parsed = QUEUE, transformed = QUEUE;

static void push(struct queue *queue) {
    pthread_mutex_lock(&queue->mutex);
    while (queue->length == 8) {
        pthread_cond_wait(&queue->changed, &queue->mutex);
    }
    queue->length++;
    pthread_cond_broadcast(&queue->changed);
    pthread_mutex_unlock(&queue->mutex);
}

static void pop(struct queue *queue) {
    pthread_mutex_lock(&queue->mutex);
    while (queue->length == 0) {
        pthread_cond_wait(&queue->changed, &queue->mutex);
    }
    queue->length--;
    pthread_cond_broadcast(&queue->changed);
    pthread_mutex_unlock(&queue->mutex);
}

NOINLINE void parse_row(void) { burn(100); }
NOINLINE void transform_row(void) { burn(2000); }
NOINLINE void write_row(void) { burn(100); }

static void *parses(void *unused) {
    for (;;) {
        parse_row();
        push(&parsed);
    }
    return unused;
}

static void *transforms(void *unused) {
    for (;;) {
        pop(&parsed);
        transform_row();
        push(&transformed);
    }
    return unused;
}

static void *writes(void *unused) {
    for (;;) {
        pop(&transformed);
        write_row();
        did(1);
    }
    return unused;
}

static int memory_file;
static long record_bytes;

NOINLINE void read_records(char *buffer) {
    for (long at = 0; at < 1 << 16; at += record_bytes) {
        check(pread(memory_file, buffer, record_bytes, at) == record_bytes, "pread");
    }
}

static void *reads(void *unused) {
    char *buffer = malloc(1 << 16);
    for (;;) {
        read_records(buffer);
        did(1);
    }
    return unused;
}

static void start_all(long threads, void *(*function)(void *)) {
    for (long i = 0; i < threads; i++) {
        start(function, 0);
    }
}

int main(int count, char **arguments) {
    prepare();
    const char *mode = count > 1 ? arguments[1] : "";
    long how_many = number(count, arguments, 2);
    begin();
    if (!strcmp(mode, "single")) {
        start_all(how_many - 1, handles_blocks);
        handles_blocks(0);
    } else if (!strcmp(mode, "pipeline")) {
        start(parses, 0);
        start_all(how_many, transforms);
        writes(0);
    } else if (!strcmp(mode, "background")) {
        start_all(how_many, compacts);
        start_all(cpus() - 1, answers_requests);
        answers_requests(0);
    } else if (!strcmp(mode, "spread")) {
        cpu_set_t some;
        CPU_ZERO(&some);
        for (long i = 0; i < cpus() * number(count, arguments, 3) / 100; i++) {
            CPU_SET(i, &some);
        }
        check(!sched_setaffinity(0, sizeof some, &some), "sched_setaffinity");
        start_all(how_many - 1, answers_requests);
        answers_requests(0);
    } else if (!strcmp(mode, "neighbour")) {
        name("batch_job");
        start_all(how_many - 1, compacts);
        compacts(0);
    } else if (!strcmp(mode, "kernel")) {
        record_bytes = how_many;
        memory_file = memfd_create("records", 0);
        check(memory_file >= 0 && !ftruncate(memory_file, 1 << 16), "memfd_create");
        start_all(cpus() - 1, reads);
        reads(0);
    }
    return 2;
}
