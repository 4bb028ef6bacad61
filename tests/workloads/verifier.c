// options: -O2 -shared -fPIC
// To be preloaded: has the kernel tell what its verifier did with each program that a process loads. Kernels before
// 5.16 tell it in no other way. A line of standard error for each: `verifier: NAME processed N insns ...`, or the end of why it was refused.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/bpf.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

// BPF_LOG_LEVEL1 and BPF_LOG_STATS, which are not in the kernel's header for user space.
#define LOG_ALL 1
#define LOG_STATS 4
// Of what the verifier says of a program that it refuses, so much of the end is told.
#define TOLD 6000

long syscall(long number, ...) {
    static long (*next)(long, ...);
    if (!next) {
        next = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    }
    va_list list;
    va_start(list, number);
    long a[6];
    for (int i = 0; i < 6; i++) {
        a[i] = va_arg(list, long);
    }
    va_end(list);
    union bpf_attr *asked = (union bpf_attr *)a[1];
    if (number != SYS_bpf || a[0] != BPF_PROG_LOAD || !asked->prog_name[0]) {
        return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    }
    static char log[16 << 20];
    log[0] = 0;
    // The caller's may be longer than what the header here knows.
    union {
        union bpf_attr known;
        char room[4096];
    } copy = {.room = {0}};
    memcpy(&copy, asked, (size_t)a[2] < sizeof copy ? (size_t)a[2] : sizeof copy);
    copy.known.log_level = LOG_STATS;
    copy.known.log_size = sizeof log;
    copy.known.log_buf = (uintptr_t)log;
    long result = next(number, a[0], (long)&copy, a[2], a[3], a[4], a[5]);
    if (result < 0) {
        copy.known.log_level = LOG_ALL | LOG_STATS;
        next(number, a[0], (long)&copy, a[2], a[3], a[4], a[5]);
        size_t length = strlen(log);
        fprintf(stderr, "verifier: refused: %.15s\n%s\n", asked->prog_name, log + (length > TOLD ? length - TOLD : 0));
        // As it was asked, so that the caller gets the answer to that.
        return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    }
    const char *facts = strstr(log, "processed ");
    if (facts) {
        fprintf(stderr, "verifier: %.15s %.*s\n", asked->prog_name, (int)strcspn(facts, "\n"), facts);
    }
    return result;
}
