// options: -O2 -g -shared -fPIC -fomit-frame-pointer -fno-optimize-sibling-calls
// The other one: its frames are large.
#define ROUNDS 3000000UL

__attribute__((noinline)) static void spin_two(void) {
    volatile char room[520];
    room[0] = 1;
    for (unsigned long i = 0; i < ROUNDS; i++) {
        __asm__ volatile("" ::: "memory");
    }
    room[1] = room[0];
}

void work(void) {
    volatile char room[328];
    room[0] = 1;
    spin_two();
    room[1] = room[0];
}
