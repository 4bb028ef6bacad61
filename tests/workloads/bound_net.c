// options: -O2 -g -fomit-frame-pointer -fno-optimize-sibling-calls -pthread
// Both ends of connections, and what bounds their work.
// usage: bound_net backend PORT nap|burn MICROSECONDS    a thread for each connection; so long for each request
//        bound_net app PORT THREADS MICROSECONDS         each thread works so long, and asks a server
//        bound_net store PORT LOOPS MICROSECONDS         a server of event loops that works so long for each request
//        bound_net impatient PORT CLIENTS TIMEOUT_MS     clients that give up after so long, and ask again on a new connection
//        bound_net listener PORT BACKLOG                 takes a connection, answers its request, takes the next
//        bound_net sink PORT HOST                        reads files, and answers each
//        bound_net upload PORT HOST                      sends files of 256 KiB, one after the other's answer
//        bound_net burst PORT CLIENTS                    all clients connect at once, and again when all have their answer
#include "work.h"
#include "tcp.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>

static long microseconds, port;
static int burns, loops_epoll[64];

NOINLINE void query_rows(void) { burn(microseconds); }
NOINLINE void execute_command(void) { burn(microseconds); }
NOINLINE void render_page(void) { burn(microseconds); }

static void *answers(void *argument) {
    int connection = (int)(intptr_t)argument;
    char byte;
    while (read(connection, &byte, 1) == 1) {
        if (burns) {
            query_rows();
        } else {
            nap(microseconds);
        }
        did(1);
        check(write(connection, &byte, 1) == 1, "write");
    }
    close(connection);
    return 0;
}

static void backend(void) {
    int listener = listen_on(port, 1024);
    begin();
    for (;;) {
        int connection = accept(listener, 0, 0);
        check(connection >= 0, "accept");
        start(answers, (void *)(intptr_t)connection);
    }
}

static void *serves_pages(void *unused) {
    int connection = connect_to(port);
    for (;;) {
        render_page();
        ask(connection);
        did(1);
    }
    return unused;
}

static void *loops(void *argument) {
    int epoll = (int)(intptr_t)argument;
    struct epoll_event event;
    for (;;) {
        if (epoll_wait(epoll, &event, 1, -1) != 1) {
            continue;
        }
        char byte;
        if (read(event.data.fd, &byte, 1) != 1) {
            close(event.data.fd);
            continue;
        }
        execute_command();
        did(1);
        // The client may have given up.
        if (write(event.data.fd, &byte, 1) != 1) {
            close(event.data.fd);
        }
    }
    return 0;
}

// Connections are dealt out in turn; the first loop takes them, too.
static void store(long how_many) {
    int listener = listen_on(port, 1024);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    check(!setrlimit(RLIMIT_NOFILE, &files), "setrlimit");
    for (long i = 0; i < how_many; i++) {
        loops_epoll[i] = epoll_create1(0);
        start(loops, (void *)(intptr_t)loops_epoll[i]);
    }
    begin();
    for (long next = 0;; next++) {
        int connection = accept(listener, 0, 0);
        check(connection >= 0, "accept");
        struct epoll_event event = {.events = EPOLLIN, .data.fd = connection};
        epoll_ctl(loops_epoll[next % how_many], EPOLL_CTL_ADD, connection, &event);
    }
}

static void listener(int backlog) {
    int listener = listen_on(port, backlog);
    begin();
    for (;;) {
        int connection = accept(listener, 0, 0);
        char byte;
        check(connection >= 0, "accept");
        if (read(connection, &byte, 1) == 1 && write(connection, &byte, 1) == 1) {
            did(1);
        }
        close(connection);
    }
}

NOINLINE int ask_within(int connection, long timeout_ms) {
    char byte = 'q';
    struct pollfd answer = {.fd = connection, .events = POLLIN};
    return write(connection, &byte, 1) == 1 && poll(&answer, 1, timeout_ms) == 1 &&
           read(connection, &byte, 1) == 1;
}

static void *is_impatient(void *timeout_ms) {
    int connection = connect_to(port);
    for (;;) {
        if (ask_within(connection, (long)timeout_ms)) {
            did(1);
        } else {
            close(connection);
            connection = connect_to(port);
        }
    }
    return 0;
}

#define FILE_BYTES (256 << 10)

static char file[FILE_BYTES];

// Whether the other end is still there.
static int receive_file(int connection) {
    for (long had = 0; had < FILE_BYTES;) {
        long got = read(connection, file + had, FILE_BYTES - had);
        if (got <= 0) {
            return 0;
        }
        had += got;
    }
    char byte = 'a';
    return write(connection, &byte, 1) == 1;
}

static void sink(void) {
    int listener = listen_on(port, 16);
    begin();
    for (;;) {
        int connection = accept(listener, 0, 0);
        check(connection >= 0, "accept");
        while (receive_file(connection)) {
        }
        close(connection);
    }
}

NOINLINE void upload_file(int connection) {
    char byte;
    check(write(connection, file, FILE_BYTES) == FILE_BYTES && read(connection, &byte, 1) == 1, "upload");
}

static void upload(void) {
    int connection = connect_to(port);
    begin();
    for (;;) {
        upload_file(connection);
        did(1);
    }
}

static pthread_barrier_t burst;

static void *joins_burst(void *unused) {
    for (;;) {
        pthread_barrier_wait(&burst);
        int connection = connect_to(port);
        ask(connection);
        close(connection);
        did(1);
    }
    return unused;
}

int main(int count, char **arguments) {
    prepare();
    const char *mode = count > 1 ? arguments[1] : "";
    port = number(count, arguments, 2);
    microseconds = count > 4 ? number(count, arguments, 4) : 0;
    if (!strcmp(mode, "backend")) {
        name("backend");
        burns = !strcmp(arguments[3], "burn");
        backend();
    } else if (!strcmp(mode, "app")) {
        name("app");
        // The server is there before work is counted.
        close(connect_to(port));
        begin();
        for (long i = 1; i < number(count, arguments, 3); i++) {
            start(serves_pages, 0);
        }
        serves_pages(0);
    } else if (!strcmp(mode, "store")) {
        name("store");
        store(number(count, arguments, 3));
    } else if (!strcmp(mode, "impatient")) {
        name("impatient");
        long timeout_ms = number(count, arguments, 4);
        close(connect_to(port));
        begin();
        for (long i = 1; i < number(count, arguments, 3); i++) {
            start(is_impatient, (void *)timeout_ms);
        }
        is_impatient((void *)timeout_ms);
    } else if (!strcmp(mode, "listener")) {
        name("listener");
        listener(number(count, arguments, 3));
    } else if (!strcmp(mode, "sink")) {
        host = arguments[3];
        sink();
    } else if (!strcmp(mode, "upload")) {
        name("upload");
        host = arguments[3];
        upload();
    } else if (!strcmp(mode, "burst")) {
        name("burst");
        long clients = number(count, arguments, 3);
        pthread_barrier_init(&burst, 0, clients);
        begin();
        for (long i = 1; i < clients; i++) {
            start(joins_burst, 0);
        }
        joins_burst(0);
    }
    return 2;
}
