// options: -O2 -g -no-pie -fomit-frame-pointer -fno-optimize-sibling-calls -fno-toplevel-reorder
// Burns CPU time and runs another program in its place: at the same addresses, replace_two.c has other functions.
// Argument: the other program's path.
#include <stdio.h>
#include <unistd.h>

#define ROUNDS 3000000UL

__attribute__((noinline)) static void burn_one(void) {
    for (unsigned long i = 0; i < ROUNDS; i++) {
        __asm__ volatile("" ::: "memory");
    }
}

__attribute__((noinline)) static void spin_one(void) {
    burn_one();
    __asm__ volatile("" ::: "memory");
}

__attribute__((noinline)) static void calls_one(void) {
    spin_one();
    __asm__ volatile("" ::: "memory");
}

int main(int argc, char **argv) {
    if (argc != 2) {
        return 2;
    }
    calls_one();
    execl(argv[1], argv[1], argv[0], NULL);
    perror(argv[1]);
    return 1;
}
