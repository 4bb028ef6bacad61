// options: -O2 -fomit-frame-pointer -falign-functions=1 -fno-builtin-ffs -pthread
// Stacks of every form that compilers make without frame pointers; until killed. usage: unwind MODE
//
// Each mode runs in one chain of calls, which tests/tests/unwind.rs states, nearly all of the time in its innermost
// function. Functions lie next to each other, so that the return address of a call that ends a function is in the next.
#include <alloca.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/time.h>

// Neither inlined nor cloned nor merged with another, and its callers know nothing of it.
#define OPAQUE __attribute__((noipa))

static volatile uint64_t sink;

OPAQUE uint64_t spin(uint64_t rounds) {
    uint64_t state = sink | 1;
    for (uint64_t i = 0; i < rounds; i++) {
        state = state * 0x5851f42d4c957f2du + 1;
    }
    sink = state;
    return state;
}

OPAQUE uint64_t tiny(uint64_t x) { return x ^ sink; }

#define ROUNDS 100000

// chain: forty nested functions, each with another frame.
#define LEVEL(n, next)                                                                                                 \
    OPAQUE uint64_t a##n(uint64_t x) {                                                                                 \
        volatile uint64_t local[1 + n % 5];                                                                            \
        local[n % 5 / 2] = x * n;                                                                                      \
        uint64_t result = next(x + n);                                                                                 \
        return result + local[n % 5 / 2] + x;                                                                          \
    }
OPAQUE uint64_t a40(uint64_t x) { return spin(ROUNDS) + x; }
LEVEL(39, a40)
LEVEL(38, a39)
LEVEL(37, a38)
LEVEL(36, a37)
LEVEL(35, a36)
LEVEL(34, a35)
LEVEL(33, a34)
LEVEL(32, a33)
LEVEL(31, a32)
LEVEL(30, a31)
LEVEL(29, a30)
LEVEL(28, a29)
LEVEL(27, a28)
LEVEL(26, a27)
LEVEL(25, a26)
LEVEL(24, a25)
LEVEL(23, a24)
LEVEL(22, a23)
LEVEL(21, a22)
LEVEL(20, a21)
LEVEL(19, a20)
LEVEL(18, a19)
LEVEL(17, a18)
LEVEL(16, a17)
LEVEL(15, a16)
LEVEL(14, a15)
LEVEL(13, a14)
LEVEL(12, a13)
LEVEL(11, a12)
LEVEL(10, a11)
LEVEL(9, a10)
LEVEL(8, a9)
LEVEL(7, a8)
LEVEL(6, a7)
LEVEL(5, a6)
LEVEL(4, a5)
LEVEL(3, a4)
LEVEL(2, a3)
LEVEL(1, a2)

// tree: each calls the next twice and does little else, so that every instruction of every prologue and epilogue is met.
OPAQUE uint64_t d12(uint64_t x) { return x + sink; }
#define BRANCH(n, next)                                                                                                \
    OPAQUE uint64_t d##n(uint64_t x) {                                                                                 \
        uint64_t first = next(x + n);                                                                                  \
        return first ^ next(first + x * n);                                                                            \
    }
BRANCH(11, d12)
BRANCH(10, d11)
BRANCH(9, d10)
BRANCH(8, d9)
BRANCH(7, d8)
BRANCH(6, d7)
BRANCH(5, d6)
BRANCH(4, d5)
BRANCH(3, d4)
BRANCH(2, d3)
BRANCH(1, d2)

// dynamic: alloca, a variable-length array, and arguments on the stack.
OPAQUE uint64_t many(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h,
                     uint64_t i) {
    return spin(ROUNDS) + a + b + c + d + e + f + g + h + i;
}
OPAQUE uint64_t pushes(uint64_t x) { return many(x, 1, 2, 3, 4, 5, x + 6, x + 7, x + 8) + x; }
OPAQUE uint64_t variable(uint64_t n) {
    uint64_t array[n % 61 + 3];
    array[n % 3] = n;
    uint64_t result = pushes((uintptr_t)memset(array, (int)n, sizeof array));
    return result + array[n % 3];
}
OPAQUE uint64_t allocates(uint64_t n) {
    char *memory = alloca(n % 977 + 1);
    memset(memory, (int)n, n % 977 + 1);
    uint64_t result = variable(n + (uint64_t)memory[0]);
    return result + (uint64_t)memory[n % 977];
}

// clobber: the frame pointer's register holds anything below a function whose frame is found by it.
#ifdef KEEPS_FRAME_POINTERS
#define ANY_REGISTER "rbx"
#else
#define ANY_REGISTER "rbp"
#endif
OPAQUE uint64_t clobbers(uint64_t x) {
    __asm__ volatile("mov $0x123456789, %%" ANY_REGISTER ::: ANY_REGISTER, "rbx", "r12", "r13", "r14", "r15");
    uint64_t result = spin(ROUNDS);
    __asm__ volatile("xor %%eax, %%eax\n\tmov %%rax, %%" ANY_REGISTER ::: "rax", ANY_REGISTER);
    return result + x;
}
OPAQUE uint64_t by_register(uint64_t n) {
    char *memory = alloca(n % 997 + 1);
    memset(memory, (int)n, n % 997 + 1);
    return clobbers(n) + (uint64_t)memory[n % 997];
}

// tail: two of the functions leave no frame.
OPAQUE uint64_t tail_three(uint64_t x) { return spin(ROUNDS) + x; }
OPAQUE uint64_t tail_two(uint64_t x) {
    uint64_t more = tiny(x);
    return tail_three(x + more);
}
OPAQUE uint64_t tail_one(uint64_t x) { return tail_two(x + 1); }

// noreturn: the call ends its function; the other way in the function's cold part.
__attribute__((noreturn)) OPAQUE void forever(void) {
    for (;;) {
        spin(ROUNDS);
    }
}
OPAQUE void never_returns(uint64_t x) {
    sink += tiny(x);
    forever();
}
OPAQUE uint64_t follows(uint64_t x) { return tiny(x) + 1; }
__attribute__((noreturn, cold)) OPAQUE void fails(void) {
    for (;;) {
        spin(ROUNDS);
    }
}
OPAQUE uint64_t has_cold_part(uint64_t x) {
    uint64_t a = tiny(x), b = tiny(a), c = tiny(b);
    if (sink != 0) {
        sink = a;
        fails();
    }
    return follows(a) + follows(b) + follows(c);
}

// signal: a handler on a stack of its own interrupts these two anywhere.
OPAQUE uint64_t handles(uint64_t x) { return spin(20 * ROUNDS) + x; }
OPAQUE void on_alarm(int number) { sink += handles((uint64_t)number); }
OPAQUE void interrupted(uint64_t x) {
    for (;;) {
        sink += tiny(x);
    }
}
OPAQUE uint64_t arms(uint64_t x) {
    stack_t stack = {.ss_sp = malloc(65536), .ss_size = 65536};
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_ONSTACK | SA_RESTART};
    struct itimerval every = {{0, 4000}, {0, 4000}};
    if (sigaltstack(&stack, 0) || sigaction(SIGALRM, &action, 0) || setitimer(ITIMER_REAL, &every, 0)) {
        abort();
    }
    interrupted(x);
    return x + sink;
}

// jump: over two functions, back into the first.
static jmp_buf target;
OPAQUE uint64_t jumps(uint64_t x) {
    sink += spin(ROUNDS) + x;
    longjmp(target, 1);
}
OPAQUE uint64_t jumped_over(uint64_t x) { return jumps(x + 1) + x; }
OPAQUE uint64_t lands(volatile uint64_t x) {
    if (setjmp(target) == 0) {
        x += jumped_over(x);
    }
    return spin(ROUNDS) + x;
}

// realigned: frames whose distance from the caller's is not known to the compiler.
OPAQUE uint64_t aligned_more(uint64_t n) {
    volatile uint64_t local[8] __attribute__((aligned(64)));
    local[n % 8] = n;
    return spin(ROUNDS) + local[n % 8];
}
OPAQUE uint64_t aligned(uint64_t n) {
    volatile uint64_t local[4] __attribute__((aligned(32)));
    char *memory = alloca(n % 991 + 1);
    memset(memory, (int)n, n % 991 + 1);
    local[n % 4] = n;
    uint64_t result = aligned_more(n + (uint64_t)memory[n % 991]);
    return result + local[n % 4];
}

// callback: through the C library, and back.
OPAQUE int compares(const void *left, const void *right) {
    sink += spin(ROUNDS / 10);
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}
OPAQUE uint64_t sorts(uint64_t x) {
    uint64_t array[64];
    for (int i = 0; i < 64; i++) {
        array[i] = (x + (uint64_t)i) * 0x9e3779b97f4a7c15u;
    }
    qsort(array, 64, sizeof *array, compares);
    return array[0];
}

// linkage: through the procedure linkage table most of the time.
OPAQUE uint64_t links(uint64_t x) {
    for (int i = 0; i < 10000; i++) {
        x += (uint64_t)ffs((int)x) + 1;
    }
    return x;
}

// thread
OPAQUE uint64_t threaded(uint64_t x) { return spin(ROUNDS) + x; }
static void *starts(void *argument) {
    for (;;) {
        sink += threaded((uintptr_t)argument);
    }
    return 0;
}

#define FOREVER(expression)                                                                                            \
    for (;;) {                                                                                                         \
        sink += expression;                                                                                            \
    }

int main(int count, char **arguments) {
    const char *mode = count > 1 ? arguments[1] : "";
    if (!strcmp(mode, "chain")) {
        FOREVER(a1(sink))
    } else if (!strcmp(mode, "tree")) {
        FOREVER(d1(sink))
    } else if (!strcmp(mode, "dynamic")) {
        FOREVER(allocates(sink))
    } else if (!strcmp(mode, "clobber")) {
        FOREVER(by_register(sink))
    } else if (!strcmp(mode, "tail")) {
        FOREVER(tail_one(sink))
    } else if (!strcmp(mode, "noreturn")) {
        never_returns(sink);
    } else if (!strcmp(mode, "cold")) {
        sink = 1;
        FOREVER(has_cold_part(sink))
    } else if (!strcmp(mode, "signal")) {
        FOREVER(arms(sink))
    } else if (!strcmp(mode, "jump")) {
        FOREVER(lands(sink))
    } else if (!strcmp(mode, "realigned")) {
        FOREVER(aligned(sink))
    } else if (!strcmp(mode, "callback")) {
        FOREVER(sorts(sink))
    } else if (!strcmp(mode, "linkage")) {
        FOREVER(links(sink))
    } else if (!strcmp(mode, "thread")) {
        pthread_t thread;
        return pthread_create(&thread, 0, starts, 0) || pthread_join(thread, 0);
    }
    fprintf(stderr, "no mode %s\n", mode);
    return 2;
}
