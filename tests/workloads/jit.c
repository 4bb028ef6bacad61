// Spins in code that it writes into memory, and names it in a perf map as a runtime does; until killed. x86-64 only.
// usage: jit [MILLISECONDS of CPU time, then it ends [NAME of the second function]]
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

// push rbp; mov rbp, rsp; mov ecx, 1000000; again: dec ecx; jnz again; pop rbp; ret
static const unsigned char code[] = {0x55, 0x48, 0x89, 0xe5, 0xb9, 0x40, 0x42, 0x0f,
                                     0x00, 0xff, 0xc9, 0x75, 0xfc, 0x5d, 0xc3};
static volatile uint64_t calls;

__attribute__((noinline)) void call_compiled(void (*compiled)(void)) {
    compiled();
    calls++;
}

int main(int argc, char **argv) {
#if defined(__x86_64__)
    char *memory = mmap(0, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        return 1;
    }
    char *first = memory + 64, *second = memory + 4096;
    memcpy(first, code, sizeof code);
    memcpy(second, code, sizeof code);
    char path[64];
    snprintf(path, sizeof path, "/tmp/perf-%d.map", getpid());
    FILE *map = fopen(path, "w");
    if (!map) {
        return 1;
    }
    fprintf(map, "%lx %zx compiled first\n", (unsigned long)first, sizeof code);
    fprintf(map, "%lx %zx %s\n", (unsigned long)second, sizeof code, argc > 2 ? argv[2] : "compiled_second");
    fclose(map);
    uint64_t limit_ns = argc > 1 ? strtoul(argv[1], 0, 10) * 1000000u : UINT64_MAX;
    struct timespec used;
    do {
        // Three to one.
        call_compiled((void (*)(void))(calls % 4 ? first : second));
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    } while ((uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec < limit_ns);
    return 0;
#else
    (void)argc, (void)argv, (void)code;
    return 1;
#endif
}
