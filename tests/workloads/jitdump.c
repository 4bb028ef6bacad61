// Spins in code that it writes into memory, and names it in a file in perf's jitdump format; until killed. x86-64 only.
// usage: jitdump DIRECTORY. One function has lines; the other is moved after it was named.
#include <stdint.h>
#include <stdio.h>
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

enum { LOAD = 0, MOVE = 1, LINES = 2 };

static void record(FILE *dump, uint32_t kind, const uint64_t *fields, uint32_t count, const void *rest, uint32_t bytes) {
    uint32_t head[4] = {kind, 16 + 8 * count + bytes, 0, 0};
    fwrite(head, sizeof head, 1, dump);
    fwrite(fields, 8, count, dump);
    fwrite(rest, 1, bytes, dump);
}

static void load(FILE *dump, const char *place, const char *name, uint64_t number) {
    char rest[128];
    uint32_t length = (uint32_t)strlen(name) + 1;
    memcpy(rest, name, length);
    memcpy(rest + length, code, sizeof code);
    uint64_t fields[] = {(uint64_t)getpid() << 32 | (uint64_t)getpid(), (uintptr_t)place, (uintptr_t)place, sizeof code,
                         number};
    record(dump, LOAD, fields, 5, rest, length + sizeof code);
}

int main(int argc, char **argv) {
#if defined(__x86_64__)
    char *memory = mmap(0, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || argc < 2) {
        return 1;
    }
    char *first = memory + 64, *second = memory + 4096, *before = memory + 2048;
    memcpy(first, code, sizeof code);
    memcpy(second, code, sizeof code);
    char path[4096];
    snprintf(path, sizeof path, "%s/jit-%d.dump", argv[1], getpid());
    FILE *dump = fopen(path, "w+");
    if (!dump) {
        return 1;
    }
    uint32_t header[10] = {0x4a695444, 1, sizeof header, 62, 0, (uint32_t)getpid()};
    fwrite(header, sizeof header, 1, dump);
    struct {
        uint64_t address;
        uint32_t line, discriminator;
        char file[16];
    } lines[2] = {{(uintptr_t)first, 11, 0, "made up.lang"}, {(uintptr_t)first + 9, 12, 0, "made up.lang"}};
    // An entry ends behind its file's name.
    char packed[2 * sizeof *lines];
    uint32_t bytes = 16 + sizeof "made up.lang";
    memcpy(packed, lines, bytes);
    memcpy(packed + bytes, lines + 1, bytes);
    uint64_t about[] = {(uintptr_t)first, 2};
    record(dump, LINES, about, 2, packed, 2 * bytes);
    load(dump, first, "compiled first", 1);
    load(dump, before, "compiled_second", 2);
    uint64_t move[] = {(uint64_t)getpid() << 32 | (uint64_t)getpid(), (uintptr_t)second, (uintptr_t)before,
                       (uintptr_t)second, sizeof code, 2};
    record(dump, MOVE, move, 6, "", 0);
    fflush(dump);
    // Tells profilers where the file is.
    if (mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fileno(dump), 0) == MAP_FAILED) {
        return 1;
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        // Three to one.
        call_compiled((void (*)(void))(calls % 4 ? first : second));
    }
#else
    (void)argc, (void)argv, (void)code;
    return 1;
#endif
}
