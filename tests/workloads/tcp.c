// options: -O2 -g -fomit-frame-pointer -fno-optimize-sibling-calls
/* Both ends of TCP connections over a link that loses packets.
 *
 * tcp sink PORT...                          accepts on these ports and reads what comes
 * tcp old|new ADDRESS PORT BYTES FILE       connects; with SIGUSR1 sends so many bytes, waits until the peer has them, makes the
 *                                           file; with SIGTERM tells "retransmits N", the kernel's own number of the connection
 * tcp try ADDRESS PORT - FILE               connects, with one retransmit of the SYN at most, makes the file, tells the same
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <linux/sockios.h>

#define NOINLINE __attribute__((noinline, noclone))

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static _Noreturn void sink(int ports, char **port) {
    static struct pollfd files[64];
    static char bytes[1 << 16];
    int used = 0, one = 1, off = 0;
    for (; used < ports; used++) {
        struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons(atoi(port[used]))};
        int fd = socket(AF_INET6, SOCK_STREAM, 0);
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
        if (bind(fd, (void *)&address, sizeof address) || listen(fd, 16)) fail("listen");
        files[used] = (struct pollfd){fd, POLLIN, 0};
    }
    for (;;) {
        poll(files, used, -1);
        for (int i = used - 1; i >= 0; i--) {
            if (!files[i].revents) continue;
            if (i < ports) {
                int fd = accept(files[i].fd, NULL, NULL);
                if (fd >= 0 && used < 64) files[used++] = (struct pollfd){fd, POLLIN, 0};
            } else if (read(files[i].fd, bytes, sizeof bytes) <= 0) {
                close(files[i].fd);
                files[i] = files[--used];
            }
        }
    }
}

static NOINLINE int open_connection(struct addrinfo *to, int tries) {
    int fd = socket(to->ai_family, SOCK_STREAM, 0);
    if (tries && setsockopt(fd, IPPROTO_TCP, TCP_SYNCNT, &tries, sizeof tries)) fail("TCP_SYNCNT");
    int failed = connect(fd, to->ai_addr, to->ai_addrlen);
    if (failed && !tries) fail("connect");
    return fd;
}

static NOINLINE void send_pieces(int fd, long bytes) {
    static char piece[16 << 10];
    while (bytes > 0) {
        long sent = send(fd, piece, bytes < (long)sizeof piece ? bytes : (long)sizeof piece, 0);
        if (sent <= 0) fail("send");
        bytes -= sent;
        usleep(2000);
    }
}

static NOINLINE void deliver(int fd, long bytes) {
    int left = 1;
    send_pieces(fd, bytes);
    while (ioctl(fd, SIOCOUTQ, &left) == 0 && left > 0) usleep(1000);
}

int main(int count, char **words) {
    if (count > 2 && !strcmp(words[1], "sink")) sink(count - 2, words + 2);
    if (count != 6) return 2;
    sigset_t set;
    int signal;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST}, *to;
    if (getaddrinfo(words[2], words[3], &hints, &to)) return 2;
    int tries = !strcmp(words[1], "try");
    int fd = open_connection(to, tries);
    if (!tries) {
        sigwait(&set, &signal);
        if (signal == SIGUSR1) deliver(fd, atol(words[4]));
    }
    struct tcp_info info = {0};
    socklen_t length = sizeof info;
    getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length);
    close(open(words[5], O_CREAT | O_WRONLY, 0600));
    sigwait(&set, &signal);
    printf("retransmits %u\n", info.tcpi_total_retrans);
    return 0;
}
