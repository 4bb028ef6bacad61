// Connections, a byte a request and a byte an answer.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

// Where servers are.
__attribute__((unused)) static const char *host = "127.0.0.1";

__attribute__((unused)) static struct sockaddr_in at_host(long port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = inet_addr(host)};
}

__attribute__((unused)) static int listen_on(long port, int backlog) {
    struct sockaddr_in address = at_host(port);
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    check(!bind(listener, (void *)&address, sizeof address) && !listen(listener, backlog), "listen");
    return listener;
}

// Waits for a server that is not there yet.
__attribute__((unused)) static int connect_to(long port) {
    struct sockaddr_in address = at_host(port);
    for (int tries = 0; tries < 1000; tries++) {
        int one = 1, connection = socket(AF_INET, SOCK_STREAM, 0);
        check(connection >= 0, "socket");
        setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (!connect(connection, (void *)&address, sizeof address)) {
            return connection;
        }
        close(connection);
        nap(10000);
    }
    check(0, "connect");
    return -1;
}

__attribute__((unused)) NOINLINE void ask(int connection) {
    char byte = 'q';
    // A server that has ended ends its clients.
    if (write(connection, &byte, 1) != 1 || read(connection, &byte, 1) != 1) {
        _exit(1);
    }
}
