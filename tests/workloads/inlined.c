// main -> noinline_outer -> inlined_middle -> inlined_inner, of which the last two have no code of their own; until killed.
#include <stdint.h>

static volatile uint64_t sink;
static void *volatile frame;

static inline __attribute__((always_inline)) uint64_t inlined_inner(uint64_t state) {
    for (int i = 0; i < 100000; i++) {
        state = state * 0x5851f42d4c957f2du + 1;  // the work
    }
    return state;
}

static inline __attribute__((always_inline)) uint64_t inlined_middle(uint64_t state) {
    return inlined_inner(state);  // calls inner
}

__attribute__((noinline)) void noinline_outer(void) {
    // Makes the compiler set up a frame, which it otherwise does not in a leaf function.
    frame = __builtin_frame_address(0);
    uint64_t state = sink | 1;
    state = inlined_middle(state);  // calls middle
    sink = state;
}

int main(void) {
    for (;;) {
        noinline_outer();
    }
}
