// options: -O2 -g -fomit-frame-pointer -fno-optimize-sibling-calls
// A process whose mappings keep changing while it is sampled.
// libraries ONE TWO: loads two libraries in turn, mostly at the same place, calls `work` in each, and unloads them.
// exec NAME: burns CPU time under the functions of that name, `one` or `two`, and runs itself anew with the other.
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ROUNDS 3000000UL

__attribute__((noinline)) static void burn(void) {
    for (unsigned long i = 0; i < ROUNDS; i++) {
        __asm__ volatile("" ::: "memory");
    }
}

__attribute__((noinline)) static void spin_one(void) {
    burn();
    __asm__ volatile("" ::: "memory");
}

__attribute__((noinline)) static void spin_two(void) {
    // A frame of another size, so that the rule of one is wrong for the other.
    volatile char room[296];
    room[0] = 1;
    burn();
    room[1] = room[0];
}

__attribute__((noinline)) static void calls_one(void (*work)(void)) {
    work();
    __asm__ volatile("" ::: "memory");
}

__attribute__((noinline)) static void calls_two(void (*work)(void)) {
    volatile char room[104];
    room[0] = 1;
    work();
    room[1] = room[0];
}

static int load(const char *path, void (*calls)(void (*)(void))) {
    void *library = dlopen(path, RTLD_NOW);
    void (*work)(void) = library ? (void (*)(void))dlsym(library, "work") : NULL;
    if (!work) {
        fprintf(stderr, "%s\n", dlerror());
        return 0;
    }
    calls(work);
    dlclose(library);
    return 1;
}

int main(int argc, char **argv) {
    if (argc == 4 && !strcmp(argv[1], "libraries")) {
        while (load(argv[2], calls_one) && load(argv[3], calls_two)) {
        }
    } else if (argc == 3 && !strcmp(argv[1], "exec")) {
        int is_one = !strcmp(argv[2], "one");
        is_one ? calls_one(spin_one) : calls_two(spin_two);
        char *const next[] = {argv[0], argv[1], is_one ? "two" : "one", NULL};
        execv("/proc/self/exe", next);
        perror("execv");
    }
    return 1;
}
