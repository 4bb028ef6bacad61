// options: -O2 -g -shared -fPIC -fomit-frame-pointer -fno-optimize-sibling-calls
// One of the libraries that remap.c loads in turn: its frames are small.
#define ROUNDS 3000000UL

__attribute__((noinline)) static void spin_one(void) {
    for (unsigned long i = 0; i < ROUNDS; i++) {
        __asm__ volatile("" ::: "memory");
    }
}

void work(void) {
    spin_one();
    __asm__ volatile("" ::: "memory");
}
