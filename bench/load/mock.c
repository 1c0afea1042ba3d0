/* An upstream that answers chat completions after a fixed time, without thinking.
 *
 *   mock [--delay-ms 20] [--gap-ms 5] [--chunks 20]      prints {"port": N} and serves until killed
 *
 * What it answers is asked for in the request's body, wherever the words stand in it:
 *   "stream": true    server-sent events: `chunks` of text, the first after the delay, then one each
 *                     gap; otherwise one JSON object after the delay
 *   mock-large        100 kB of text instead of 100 bytes
 *   mock-error        a 500 after the delay
 *   mock-limit        a 429 with retry-after after the delay
 *   mock-reset        a stream, or an answer, that is reset half way
 * HTTP/1.1 with keep-alive and content-length; one thread. Anything with another path gets a 404.
 */
#include "http.h"

#define SMALL_TEXT 100
#define LARGE_TEXT 100000
#define MAX_CHUNKS 1000

typedef struct { char *data; size_t len; } Bytes;

typedef struct Conn Conn;
struct Conn {
    int fd;
    char *in;              /* what was read and not yet answered */
    size_t in_len, in_room;
    const char *out;       /* what is being written: always into a prepared answer */
    size_t out_len;
    const Bytes *answer;   /* pieces; the last is followed by one with data NULL */
    int piece, is_waiting, is_reset, is_watching_out;
    int64_t due_ns;
    Conn *next, *before;   /* in the line of those that wait for the same time span */
};

typedef struct { int64_t span_ns; Conn *first, *last; } Line; /* first due stands first */

static int epoll, chunks = 20;
static Line delayed, gapped;
static Bytes json_small[2], json_large[2], sse_small[MAX_CHUNKS + 2], sse_large[MAX_CHUNKS + 2];
static Bytes server_error[2], too_many[2], not_found[2], cut_json[2];

static Bytes bytes_of(char *text) { return (Bytes){text, strlen(text)}; }

static char *words(int n) { /* n characters of text that is neither constant nor random */
    static const char *word[] = {"order ", "ticket ", "late ", "refund ", "since ", "parcel ", "again "};
    char *text = malloc(n + 16), *end = text;
    for (int i = 0; end - text < n; i = (i * 5 + 3) % 7) end = stpcpy(end, word[i]);
    text[n] = 0;
    return text;
}

static Bytes whole(const char *status, const char *more, const char *body) {
    char *text;
    if (asprintf(&text, "HTTP/1.1 %s\r\ncontent-type: application/json\r\n%scontent-length: %zu\r\n\r\n%s",
                 status, more, strlen(body), body) < 0) die("asprintf");
    return bytes_of(text);
}

static Bytes json_answer(int n) {
    char *body, *text = words(n);
    if (asprintf(&body,
                 "{\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion\",\"created\":1700000000,"
                 "\"model\":\"mock\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
                 "\"content\":\"%s\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":40,"
                 "\"completion_tokens\":%d,\"total_tokens\":%d}}", text, n / 5, 40 + n / 5) < 0)
        die("asprintf");
    return whole("200 OK", "", body);
}

static Bytes event(const char *head, const char *delta, const char *finish, const char *end) {
    char *body, *text;
    if (asprintf(&body,
                 "data: {\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion.chunk\",\"created\":"
                 "1700000000,\"model\":\"mock\",\"choices\":[{\"index\":0,\"delta\":{%s},"
                 "\"finish_reason\":%s}]}\n\n%s", delta, finish, *end ? "data: [DONE]\n\n" : "") < 0)
        die("asprintf");
    if (asprintf(&text, "%s%zx\r\n%s\r\n%s", head, strlen(body), body, end) < 0) die("asprintf");
    return bytes_of(text);
}

static void make_stream(Bytes *to, int n) {
    char *text = words(n / chunks), *delta;
    for (int i = 0; i < chunks; i++) {
        const char *role = i ? "" : "\"role\":\"assistant\",";
        if (asprintf(&delta, "%s\"content\":\"%s\"", role, text) < 0) die("asprintf");
        to[i] = event(i ? "" : "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                               "transfer-encoding: chunked\r\n\r\n", delta, "null", "");
    }
    to[chunks] = event("", "", "\"stop\"", "0\r\n\r\n");
}

static void make_answers(void) {
    json_small[0] = json_answer(SMALL_TEXT);
    json_large[0] = json_answer(LARGE_TEXT);
    make_stream(sse_small, SMALL_TEXT * 4);
    make_stream(sse_large, LARGE_TEXT);
    cut_json[0] = (Bytes){json_small[0].data, json_small[0].len / 2};
    server_error[0] = whole("500 Internal Server Error", "",
                            "{\"error\":{\"message\":\"mock\",\"type\":\"server_error\"}}");
    too_many[0] = whole("429 Too Many Requests", "retry-after: 1\r\n",
                        "{\"error\":{\"message\":\"mock\",\"type\":\"rate_limit\"}}");
    not_found[0] = whole("404 Not Found", "", "{\"error\":{\"message\":\"mock\",\"type\":\"path\"}}");
}

static void stand_in(Line *line, Conn *c, int64_t from_ns) {
    c->due_ns = from_ns + line->span_ns;
    c->next = NULL;
    c->before = line->last;
    *(line->last ? &line->last->next : &line->first) = c;
    line->last = c;
    c->is_waiting = 1;
}

static void step_out(Line *line, Conn *c) {
    *(c->before ? &c->before->next : &line->first) = c->next;
    *(c->next ? &c->next->before : &line->last) = c->before;
    c->is_waiting = 0;
}

static void drop(Conn *c, int with_reset) {
    if (c->is_waiting) step_out(c->piece ? &gapped : &delayed, c);
    if (with_reset) {
        struct linger now = {1, 0};
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    }
    close(c->fd);
    free(c->in);
    c->fd = -1; /* freed at the end of the round, when no event can name it any more */
}

static const Bytes *answer_to(Conn *c, size_t head, size_t len) {
    char end = c->in[len];
    c->in[len] = 0;
    const char *body = c->in + head;
    int is_large = strstr(body, "mock-large") != NULL;
    int is_stream = strstr(body, "\"stream\":true") || strstr(body, "\"stream\": true");
    const Bytes *answer = is_stream ? (is_large ? sse_large : sse_small)
                                    : (is_large ? json_large : json_small);
    c->is_reset = strstr(body, "mock-reset") != NULL;
    if (c->is_reset && !is_stream) answer = cut_json;
    if (strstr(body, "mock-error")) answer = server_error;
    if (strstr(body, "mock-limit")) answer = too_many;
    c->in[len] = end;
    if (!memmem(c->in, head, "/chat/completions", 17)) answer = not_found;
    return answer;
}

/* Begin to answer the request at the front of what was read, once it is there as a whole. */
static void take_request(Conn *c) {
    if (c->answer) return;
    char *end = memmem(c->in, c->in_len, "\r\n\r\n", 4);
    if (!end) return;
    size_t head = end + 4 - c->in;
    const char *length = header_of(c->in, head, "\r\ncontent-length: ");
    size_t len = head + (length ? strtoul(length, NULL, 10) : 0);
    if (c->in_len < len) return;
    c->answer = answer_to(c, head, len);
    c->piece = 0;
    memmove(c->in, c->in + len, c->in_len -= len);
    stand_in(&delayed, c, now_ns());
}

static int write_out(Conn *c) { /* 0 when the connection is gone */
    while (c->out_len) {
        ssize_t n = write(c->fd, c->out, c->out_len);
        if (n < 0 && errno != EAGAIN) return drop(c, 0), 0;
        int must_wait = n < 0;
        if (must_wait != c->is_watching_out) {
            watch(epoll, EPOLL_CTL_MOD, c->fd, EPOLLIN | (must_wait ? EPOLLOUT : 0), c);
            c->is_watching_out = must_wait;
        }
        if (must_wait) return 1;
        c->out += n;
        c->out_len -= n;
    }
    if (c->is_watching_out) watch(epoll, EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
    c->is_watching_out = 0;
    if (c->is_reset && (c->piece > chunks / 2 || !c->answer[c->piece].data)) return drop(c, 1), 0;
    if (c->answer[c->piece].data) {
        stand_in(&gapped, c, c->due_ns > now_ns() - gapped.span_ns ? c->due_ns : now_ns());
    } else {
        c->answer = NULL;
        take_request(c);
    }
    return 1;
}

static void send_due(Line *line, Conn ***dead) {
    int64_t now = now_ns();
    while (line->first && line->first->due_ns <= now) {
        Conn *c = line->first;
        step_out(line, c);
        c->out = c->answer[c->piece].data;
        c->out_len = c->answer[c->piece].len;
        c->piece++;
        if (!write_out(c)) *(*dead)++ = c;
    }
}

static int read_in(Conn *c) {
    for (;;) {
        if (c->in_room < c->in_len + READ_BYTES + 1) {
            c->in_room = 2 * (c->in_len + READ_BYTES);
            if (!(c->in = realloc(c->in, c->in_room))) die("realloc");
        }
        ssize_t n = read(c->fd, c->in + c->in_len, READ_BYTES);
        if (n == 0 || (n < 0 && errno != EAGAIN)) return drop(c, 0), 0;
        if (n > 0) c->in_len += n;
        if (n < READ_BYTES) break;
    }
    take_request(c);
    return 1;
}

static void accept_all(int listener) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        Conn *c = calloc(1, sizeof *c);
        c->fd = fd;
        send_at_once(fd);
        watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, c);
    }
}

static int listen_anywhere(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    if (bind(fd, (void *)&at, len) < 0 || listen(fd, 4096) < 0) die("listen");
    getsockname(fd, (void *)&at, &len);
    printf("{\"port\": %d}\n", ntohs(at.sin_port));
    fflush(stdout);
    return fd;
}

int main(int argc, char **argv) {
    double delay_ms = 20, gap_ms = 5;
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc) return fprintf(stderr, "mock: %s needs a value\n", argv[i]), 2;
        if (!strcmp(argv[i], "--delay-ms")) delay_ms = atof(argv[i + 1]);
        else if (!strcmp(argv[i], "--gap-ms")) gap_ms = atof(argv[i + 1]);
        else if (!strcmp(argv[i], "--chunks")) chunks = atoi(argv[i + 1]);
        else return fprintf(stderr, "mock: unknown option %s\n", argv[i]), 2;
    }
    if (chunks < 1 || chunks > MAX_CHUNKS) return fprintf(stderr, "mock: 1 to 1000 chunks\n"), 2;
    set_up_process();
    delayed.span_ns = delay_ms * 1e6;
    gapped.span_ns = gap_ms * 1e6;
    make_answers();
    epoll = epoll_create1(0);
    int listener = listen_anywhere();
    watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    for (;;) {
        static struct epoll_event events[EVENTS];
        static Conn *gone[1 << 17], **dead;
        dead = gone;
        int64_t due = now_ns() + 1000000000LL;
        if (delayed.first && delayed.first->due_ns < due) due = delayed.first->due_ns;
        if (gapped.first && gapped.first->due_ns < due) due = gapped.first->due_ns;
        int n = wait_until(epoll, events, due);
        for (int i = 0; i < n; i++) {
            Conn *c = events[i].data.ptr;
            if (!c) accept_all(listener);
            else if (c->fd < 0) continue;
            else if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
                if (!read_in(c)) *dead++ = c;
                else if (events[i].events & EPOLLOUT && c->out_len && !write_out(c)) *dead++ = c;
            } else if (c->out_len && !write_out(c)) *dead++ = c;
        }
        send_due(&gapped, &dead);
        send_due(&delayed, &dead);
        while (dead > gone) free(*--dead);
    }
}
