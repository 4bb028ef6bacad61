// options: -O2 -g -fomit-frame-pointer -fno-optimize-sibling-calls
// A process whose mappings keep changing while it is sampled: loads two libraries in turn, mostly at the same place, calls `work`
// in each, and unloads them.
// Arguments: the libraries' paths.
#include <dlfcn.h>
#include <stdio.h>

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
    if (argc == 3) {
        while (load(argv[1], calls_one) && load(argv[2], calls_two)) {
        }
    }
    return 1;
}
