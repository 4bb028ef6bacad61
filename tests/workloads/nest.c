// main -> outer -> middle -> inner, of which inner burns all of the time; until killed.
#include <stdint.h>

static volatile uint64_t sink;
static void *volatile frame;

__attribute__((noinline)) void inner(void) {
    // Makes the compiler set up a frame, which it otherwise does not in a leaf function.
    frame = __builtin_frame_address(0);
    uint64_t state = sink | 1;
    for (int i = 0; i < 100000; i++) {
        state = state * 0x5851f42d4c957f2du + 1;
    }
    sink = state;
}

__attribute__((noinline)) void middle(void) {
    inner();
    sink++;
}

__attribute__((noinline)) void outer(void) {
    middle();
    sink++;
}

int main(void) {
    for (;;) {
        outer();
    }
}
