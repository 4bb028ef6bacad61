// options: -O2 -g -no-pie -fomit-frame-pointer -fno-optimize-sibling-calls -fno-toplevel-reorder
// What replace_one.c runs in its place: its functions are in another order and have larger frames, so that neither the names nor
// the rules of the one hold for the other.
#include <stdio.h>
#include <unistd.h>

#define ROUNDS 3000000UL

static void spin_two(void);
static void burn_two(void);

__attribute__((noinline)) static void calls_two(void) {
    volatile char room[104];
    room[0] = 1;
    spin_two();
    room[1] = room[0];
}

__attribute__((noinline)) static void spin_two(void) {
    volatile char room[296];
    room[0] = 1;
    burn_two();
    room[1] = room[0];
}

__attribute__((noinline)) static void burn_two(void) {
    for (unsigned long i = 0; i < ROUNDS; i++) {
        __asm__ volatile("" ::: "memory");
    }
}

int main(int argc, char **argv) {
    if (argc != 2) {
        return 2;
    }
    calls_two();
    execl(argv[1], argv[1], argv[0], NULL);
    perror(argv[1]);
    return 1;
}
