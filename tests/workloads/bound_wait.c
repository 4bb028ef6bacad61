// options: -O2 -g -fomit-frame-pointer -fno-optimize-sibling-calls -pthread
// Work that waits.
// usage: bound_wait poll|event              asks each 10 ms whether a job is done, or is told
//        bound_wait pipe BYTES              what one process makes, another uses, through a pipe with so much room
//        bound_wait children CHILDREN       children that take 30 ms, so many at once
//        bound_wait execute each|one        a program for each job, or one that is given jobs
#include "work.h"
#include <spawn.h>
#include <sys/eventfd.h>

extern char **environ;

static int jobs, done;
static _Atomic int is_done;

NOINLINE void transfer_block(void) { burn(50); }

static void *transfers(void *unused) {
    uint64_t count;
    while (read(jobs, &count, sizeof count) == sizeof count) {
        transfer_block();
        atomic_store(&is_done, 1);
        count = 1;
        check(write(done, &count, sizeof count) == sizeof count, "write");
    }
    return unused;
}

NOINLINE void poll_completion(void) {
    while (!atomic_load(&is_done)) {
        nap(10000);
    }
}

NOINLINE void await_completion(void) {
    uint64_t count;
    check(read(done, &count, sizeof count) == sizeof count, "read");
}

static void asks_for_blocks(int polls) {
    jobs = eventfd(0, 0);
    done = eventfd(0, 0);
    start(transfers, 0);
    begin();
    for (;;) {
        uint64_t count = 1;
        atomic_store(&is_done, 0);
        check(write(jobs, &count, sizeof count) == sizeof count, "write");
        if (polls) {
            poll_completion();
        } else {
            await_completion();
        }
        did(1);
    }
}

#define BLOCK_BYTES (64 << 10)
#define CHUNK_BYTES (4 << 10)

NOINLINE void make_block(void) { burn(4000); }
NOINLINE void use_chunk(void) { burn(4000 / (BLOCK_BYTES / CHUNK_BYTES)); }
NOINLINE void hand_over(int to, const char *block) {
    check(write(to, block, BLOCK_BYTES) == BLOCK_BYTES, "write");
}

// With room for one chunk, each process waits while the other works.
static void hands_over(int room) {
    static char block[BLOCK_BYTES];
    int ends[2];
    check(!pipe(ends) && fcntl(ends[1], F_SETPIPE_SZ, room) >= room, "pipe");
    if (fork_child() == 0) {
        name("producer");
        for (;;) {
            make_block();
            hand_over(ends[1], block);
        }
    }
    begin();
    for (;;) {
        check(read(ends[0], block, CHUNK_BYTES) == CHUNK_BYTES, "read");
        use_chunk();
        did(1);
    }
}

NOINLINE void await_child(void) { check(wait(0) > 0, "wait"); }

static void children(long at_once) {
    begin();
    for (long running = 0;; running--) {
        for (; running < at_once; running++) {
            if (fork_child() == 0) {
                nap(30000);
                _exit(0);
            }
        }
        await_child();
        did(1);
    }
}

NOINLINE void execute_filter(void) {
    char *command[] = {"/bin/true", 0};
    pid_t child;
    int status;
    check(!posix_spawn(&child, command[0], 0, 0, command, environ), "posix_spawn");
    check(waitpid(child, &status, 0) == child, "waitpid");
}

// What the program would do, and it costs nothing.
static void execute(int each) {
    int requests[2], answers[2];
    char byte = 'j';
    check(!pipe(requests) && !pipe(answers), "pipe");
    if (!each && fork_child() == 0) {
        while (read(requests[0], &byte, 1) == 1 && write(answers[1], &byte, 1) == 1) {
        }
        _exit(0);
    }
    begin();
    for (;;) {
        if (each) {
            execute_filter();
        } else {
            check(write(requests[1], &byte, 1) == 1 && read(answers[0], &byte, 1) == 1, "the worker");
        }
        did(1);
    }
}

int main(int count, char **arguments) {
    prepare();
    const char *mode = count > 1 ? arguments[1] : "";
    if (!strcmp(mode, "poll") || !strcmp(mode, "event")) {
        asks_for_blocks(!strcmp(mode, "poll"));
    } else if (!strcmp(mode, "pipe")) {
        hands_over(number(count, arguments, 2));
    } else if (!strcmp(mode, "children")) {
        children(number(count, arguments, 2));
    } else if (!strcmp(mode, "execute") && count > 2) {
        execute(!strcmp(arguments[2], "each"));
    }
    return 2;
}
