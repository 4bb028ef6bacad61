// Reads /dev/zero a byte at a time and asks for the time, for ever: much time in the kernel, some in the vDSO.
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

static char buffer[65536];

// A system call without libc's wrapper, which has no frame pointer and would hide its caller.
static inline __attribute__((always_inline)) long read_directly(int file, void *to, size_t size) {
#if defined(__x86_64__)
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(0), "D"(file), "S"(to), "d"(size) : "rcx", "r11", "memory");
    return result;
#else
    register long x0 __asm__("x0") = file;
    register long x1 __asm__("x1") = (long)to;
    register long x2 __asm__("x2") = (long)size;
    register long x8 __asm__("x8") = 63;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x1), "r"(x2), "r"(x8) : "memory");
    return x0;
#endif
}

__attribute__((noinline)) void read_zeros(int zero) {
    for (int i = 0; i < 20; i++) {
        if (read_directly(zero, buffer, sizeof buffer) < 0) {
            _exit(1);
        }
    }
}

__attribute__((noinline)) void ask_the_time(void) {
    struct timespec now;
    for (int i = 0; i < 500; i++) {
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
