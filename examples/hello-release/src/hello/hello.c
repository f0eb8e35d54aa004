/* Answers every HTTP request with one line: a daemon small enough to compile in a blink.
 *
 *   hello ADDRESS PORT PIDFILE TEXT
 *
 * It listens before it goes into the background, so that whoever starts it hears of an address that is taken. The
 * pidfile is the last thing it writes: once that is there, it answers. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *pidfile;

static void fail(const char *what) {
    fprintf(stderr, "hello: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void stop(int signal_number) {
    (void)signal_number;
    unlink(pidfile);
    _exit(0);
}

static int listen_on(const char *address, const char *port) {
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};
    if (inet_pton(AF_INET, address, &where.sin_addr) != 1) {
        fprintf(stderr, "hello: `%s` is not an IPv4 address\n", address);
        exit(1);
    }
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    if (listener < 0) fail("socket");
    /* A restart must not wait for old connections to time out. */
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&where, sizeof where) < 0) fail("bind");
    if (listen(listener, 16) < 0) fail("listen");
    return listener;
}

static void write_pidfile(void) {
    FILE *file = fopen(pidfile, "w");
    if (!file || fprintf(file, "%d\n", (int)getpid()) < 0 || fclose(file) != 0) fail(pidfile);
}

/* Reads to the blank line that ends a request. It may come in pieces, and what is left unread when the connection is
 * closed resets it: the visitor would lose the answer. */
static int read_request(int client) {
    char request[4096];
    size_t length = 0;
    while (length < sizeof request - 1) {
        ssize_t more = read(client, request + length, sizeof request - 1 - length);
        if (more <= 0) return 0;
        length += (size_t)more;
        request[length] = 0;
        if (strstr(request, "\r\n\r\n")) return 1;
    }
    return 0;
}

static void answer(int client, const char *text) {
    char reply[2048];
    /* One visitor at a time: a silent one must not keep the others waiting. */
    struct timeval patience = {.tv_sec = 2};
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (read_request(client)) {
        int length = snprintf(reply, sizeof reply,
                              "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n\r\n%.1024s\n",
                              strnlen(text, 1024) + 1, text);
        if (write(client, reply, (size_t)length) < 0) perror("hello: write");
    }
    close(client);
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: hello ADDRESS PORT PIDFILE TEXT\n");
        return 2;
    }
    pidfile = argv[3];
    int listener = listen_on(argv[1], argv[2]);
    if (daemon(1, 1) < 0) fail("daemon");
    signal(SIGTERM, stop);
    signal(SIGPIPE, SIG_IGN);
    write_pidfile();
    printf("hello: listening on %s:%s\n", argv[1], argv[2]);
    fflush(stdout);
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client >= 0) answer(client, argv[4]);
    }
}
