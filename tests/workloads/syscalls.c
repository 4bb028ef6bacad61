// Reads /dev/zero a byte at a time and asks for the time, for ever: much time in the kernel, some in the vDSO.
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

static char buffer[65536];

__attribute__((noinline)) void read_zeros(int zero) {
    for (int i = 0; i < 20; i++) {
        if (read(zero, buffer, sizeof buffer) < 0) {
            _exit(1);
        }
    }
}

__attribute__((noinline)) void ask_the_time(void) {
    struct timespec now;
    for (int i = 0; i < 2000; i++) {
        clock_gettime(CLOCK_MONOTONIC, &now);
    }
}

int main(void) {
    int zero = open("/dev/zero", O_RDONLY);
    for (;;) {
        read_zeros(zero);
        ask_the_time();
    }
}
