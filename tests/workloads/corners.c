// options: -O2 -fomit-frame-pointer
// Places in which sampling seldom finds a thread, for recording single stacks; until killed. usage: corners MODE
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define OPAQUE __attribute__((noipa))

// vfork: stops itself where the call returns, with its return address in a register: its child had the stack until then.
OPAQUE int forks(void) {
    pid_t parent = getpid(), child = vfork();
    if (child == 0) {
        kill(parent, SIGSTOP);
        _exit(0);
    }
    return waitpid(child, 0, 0);
}

// vdso: most of the time in a system call that the vDSO makes.
OPAQUE long asks(void) {
    struct timespec now;
    return clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
}

int main(int count, char **arguments) {
    const char *mode = count > 1 ? arguments[1] : "";
    while (!strcmp(mode, "vfork")) {
        forks();
    }
    while (!strcmp(mode, "vdso")) {
        asks();
    }
    fprintf(stderr, "no mode %s\n", mode);
    return 2;
}
