/* What both programs share: sockets that do not wait, a clock, and the little of HTTP/1.1 they read. */
#ifndef HTTP_H
#define HTTP_H
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS 512
#define READ_BYTES 65536

static inline void die(const char *what) {
    perror(what);
    exit(1);
}

static inline int64_t now_ns(void) { /* the clock of Python's time.monotonic_ns() */
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static inline void set_up_process(void) {
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1000UL); /* wake at the moment asked for, not 50 us later */
}

static inline int wait_until(int epoll, struct epoll_event *events, int64_t due_ns) {
    int64_t left = due_ns - now_ns();
    if (left < 0) left = 0;
    struct timespec t = {left / 1000000000LL, left % 1000000000LL};
    int n = epoll_pwait2(epoll, events, EVENTS, &t, NULL);
    if (n < 0 && errno != EINTR) die("epoll_pwait2");
    return n < 0 ? 0 : n;
}

static inline void watch(int epoll, int how, int fd, uint32_t what, void *who) {
    struct epoll_event event = {.events = what, .data.ptr = who};
    if (epoll_ctl(epoll, how, fd, &event) < 0) die("epoll_ctl");
}

static inline void send_at_once(int fd) {
    int yes = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

/* The value of a header within a head that ends in a blank line, or NULL. `name` is "\r\nx: ". */
static inline const char *header_of(const char *head, size_t len, const char *name) {
    size_t n = strlen(name);
    for (size_t i = 0; i + n <= len; i++)
        if (head[i] == '\r' && strncasecmp(head + i, name, n) == 0) return head + i + n;
    return NULL;
}

#endif
