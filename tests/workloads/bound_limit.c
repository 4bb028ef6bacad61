// options: -O2 -g -fomit-frame-pointer -fno-optimize-sibling-calls -pthread
// Work that a limit refuses; it is tried again a little later, so the program looks idle.
// usage: bound_limit files LIMIT       handlers that have 8 files open each while they work
//        bound_limit processes         a child for each job, up to 16 at once
#include "work.h"
#include <sys/resource.h>

#define FILES 8
#define HANDLERS 16

NOINLINE void merge_files(void) {
    burn(100);
    nap(2000);
}

// Whether there were enough.
NOINLINE int open_parts(int *files) {
    for (int i = 0; i < FILES; i++) {
        files[i] = open("/proc/self/stat", O_RDONLY);
        if (files[i] < 0) {
            check(errno == EMFILE, "open");
            while (i-- > 0) {
                close(files[i]);
            }
            return 0;
        }
    }
    return 1;
}

static void *merges(void *unused) {
    int files[FILES];
    for (;;) {
        if (!open_parts(files)) {
            nap(20000);
            continue;
        }
        merge_files();
        for (int i = 0; i < FILES; i++) {
            close(files[i]);
        }
        did(1);
    }
    return unused;
}

static void processes(void) {
    begin();
    for (int running = 0;;) {
        pid_t child = running < 16 ? fork_child() : 0;
        if (child == 0 && running < 16) {
            burn(200);
            nap(20000);
            _exit(0);
        }
        if (child > 0) {
            running++;
        } else if (child < 0) {
            check(errno == EAGAIN, "fork");
            nap(20000);
        }
        while (running > 0 && waitpid(-1, 0, running < 16 ? WNOHANG : 0) > 0) {
            running--;
            did(1);
        }
    }
}

int main(int count, char **arguments) {
    prepare();
    const char *mode = count > 1 ? arguments[1] : "";
    if (!strcmp(mode, "files")) {
        struct rlimit limit = {number(count, arguments, 2), number(count, arguments, 2)};
        check(!setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
        begin();
        for (int i = 1; i < HANDLERS; i++) {
            start(merges, 0);
        }
        merges(0);
    } else if (!strcmp(mode, "processes")) {
        processes();
    }
    return 2;
}
