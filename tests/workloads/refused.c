// options: -O2 -g -fomit-frame-pointer -pthread
// Opens a file, and three times one more than it may have open; closes, pauses for a millisecond, and does it again.
// usage: refused MILLISECONDS    at the end prints "failed N", how many calls have failed
#include "work.h"
#include <sys/resource.h>

int main(int count, char **arguments) {
    prepare();
    long milliseconds = number(count, arguments, 1);
    int first = open("/proc/self/stat", O_RDONLY);
    check(first >= 0, "open");
    close(first);
    // The lowest number that is free is the only one left.
    struct rlimit limit = {first + 1, first + 1};
    check(!setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
    begin();
    long failed = 0;
    uint64_t end = now_ns() + (uint64_t)milliseconds * 1000000u;
    while (now_ns() < end) {
        int file = open("/proc/self/stat", O_RDONLY);
        check(file >= 0, "open");
        for (int i = 0; i < 3; i++) {
            check(open("/proc/self/stat", O_RDONLY) < 0 && errno == EMFILE, "open one too many");
            failed++;
        }
        close(file);
        nap(1000);
    }
    printf("failed %ld\n", failed);
    return 0;
}
