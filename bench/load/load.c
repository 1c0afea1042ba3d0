/* Asks a server on this machine for HTTP answers, at a steady rate or as fast as it will answer.
 *
 *   load --port N --seconds S --body FILE [--body FILE ...] (--rate R | --conns C)
 *        [--warm-s S] [--path P] [--header 'name: value' ...] [--max-conns N]
 *        [--leave FRAC] [--slow FRAC] [--log FILE] [--seed N]
 *
 * --rate is an open loop: request k is due at start + k / R whatever happened to those before it, and
 * its time is counted from then on, also while it waits for a free connection. A server that stalls
 * therefore looks as slow as its callers find it (no coordinated omission). A request that is never
 * answered counts as long as it was waited for. --conns is a closed loop: each connection asks again
 * as soon as it has its answer. Bodies are posted in turn, on connections that are kept and reused.
 * --leave hangs up on that share of requests, half of them at once and half at the first byte of the
 * answer; --slow reads that share in sips. --log writes a line for each whole answer: status, when it
 * ended on the clock of Python's time.monotonic(), and its x-own-request-id.
 *
 * Prints one JSON object. A whole answer with status 200 is `done`, every other outcome is one of
 * `errors`, `left` (we hung up), `unanswered`; requests due in the first --warm-s seconds count only
 * in `answers` (all that are whole and 200), `issued` and `read_bytes`.
 */
#include "http.h"

#define HEAD_BYTES 16384
#define DRAIN_NS 10000000000LL
#define STALE_NS 2000000000LL /* servers hang up on idle connections: do not reuse old ones */
#define SIP_BYTES 2048
#define SIP_NS 10000000LL

enum { CONNECTING, IDLE, WAITING, HEAD, BODY };          /* of a connection */
enum { SIZE, DATA, DATA_END, TRAILER, PLAIN };           /* of a body being read */

typedef struct Conn {
    int fd, state, part, status, leaves, is_slow, is_sipping, is_dead, is_watching_out;
    int64_t due_ns, first_ns, idle_ns, sip_ns;
    const char *out;
    size_t out_len, head_len, left, line_len;
    char head[HEAD_BYTES];
    struct Conn *next;     /* in the stack of idle ones, or among those that sip */
} Conn;

static int epoll, port, conns, num_bodies, max_conns = 4096;
static double rate, seconds, warm_s, leave, slow;
static uint64_t random_state = 88172645463325252ULL;
static const char *path = "/v1/chat/completions", *log_path;
static char headers[8192], *body_files[64];
static struct { char *data; size_t len; } requests[64];
static FILE *log_file;

static Conn *idle, *sipping, *gone;
static int num_open, num_busy;
static int64_t start_ns, warm_ns, end_ns, issued, read_bytes;
static long answers, errors, left_early, unanswered, non_200, done_in_time;
static struct { double *ms; size_t n, room; } whole, first;

static void note_ms(void *to, int64_t ns) {
    typeof(whole) *all = to;
    if (all->n == all->room) {
        all->room = all->room ? 2 * all->room : 4096;
        if (!(all->ms = realloc(all->ms, all->room * sizeof *all->ms))) die("realloc");
    }
    all->ms[all->n++] = ns / 1e6;
}

static double chance(void) {
    random_state ^= random_state << 13, random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (random_state >> 11) * 0x1p-53;
}

static int is_counted(const Conn *c) { return c->due_ns >= warm_ns; }

static void hang_up(Conn *c) {
    if (c->is_dead) return;
    close(c->fd);
    num_open--;
    c->is_dead = 1;
    if (c->state != IDLE) num_busy--;
    for (Conn **p = &idle; *p; p = &(*p)->next)
        if (*p == c) { *p = c->next; break; }
    for (Conn **p = &sipping; *p; p = &(*p)->next)
        if (*p == c) { *p = c->next; break; }
    c->next = gone; /* freed at the end of the round, when no event can name it any more */
    gone = c;
}

static void fail(Conn *c) {
    if (c->state != IDLE && is_counted(c)) errors++;
    hang_up(c);
}

static void leave_it(Conn *c) {
    if (is_counted(c)) left_early++;
    hang_up(c);
}

static int write_out(Conn *c) { /* 0 when the connection is gone */
    while (c->out_len) {
        ssize_t n = write(c->fd, c->out, c->out_len);
        if (n < 0 && errno != EAGAIN) return fail(c), 0;
        if (n < 0) break;
        c->out += n;
        c->out_len -= n;
    }
    int wants = c->out_len > 0;
    if (wants != c->is_watching_out) {
        watch(epoll, EPOLL_CTL_MOD, c->fd, EPOLLIN | (wants ? EPOLLOUT : 0), c);
        c->is_watching_out = wants;
    }
    if (!wants && c->leaves == 1) return leave_it(c), 0;
    return 1;
}

static Conn *connect_new(int is_slow) {
    Conn *c = calloc(1, sizeof *c);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) die("socket");
    send_at_once(c->fd);
    int small = 4096;
    if (is_slow) setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    c->is_slow = is_slow;
    c->state = CONNECTING;
    num_open++, num_busy++;
    watch(epoll, EPOLL_CTL_ADD, c->fd, EPOLLIN | EPOLLOUT, c);
    c->is_watching_out = 1;
    if (connect(c->fd, (void *)&to, sizeof to) < 0 && errno != EINPROGRESS) c->state = WAITING, fail(c);
    return c;
}

/* A connection to ask on: one that is free and not stale, else a new one, else NULL. */
static Conn *free_connection(int64_t now, int is_slow) {
    while (!is_slow && idle) {
        Conn *c = idle;
        if (now - c->idle_ns > STALE_NS) { hang_up(c); continue; }
        idle = c->next;
        num_busy++;
        c->state = WAITING;
        return c;
    }
    return num_open < max_conns ? connect_new(is_slow) : NULL;
}

static int ask(int64_t due_ns, int64_t now) { /* 0 when there is no connection to ask on */
    Conn *c = free_connection(now, slow > 0 && chance() < slow);
    if (!c) return 0;
    c->due_ns = due_ns;
    if (c->is_dead) { errors += is_counted(c); issued++; return 1; }
    c->out = requests[issued % num_bodies].data;
    c->out_len = requests[issued % num_bodies].len;
    c->head_len = 0;
    c->first_ns = 0;
    c->leaves = leave > 0 && chance() < leave ? 1 + (chance() < 0.5) : 0;
    issued++;
    if (c->state == WAITING) write_out(c);
    return 1;
}

static void finish(Conn *c) {
    int64_t now = now_ns();
    if (c->status == 200) answers++, done_in_time += now >= warm_ns && now <= end_ns;
    else non_200 += is_counted(c);
    if (is_counted(c)) {
        if (c->status == 200) {
            note_ms(&whole, now - c->due_ns);
            note_ms(&first, (c->first_ns ? c->first_ns : now) - c->due_ns);
        } else {
            errors++;
        }
    }
    if (log_file) {
        const char *id = header_of(c->head, c->head_len, "\r\nx-own-request-id: ");
        int n = id ? (int)strcspn(id, "\r") : 0;
        fprintf(log_file, "%d %.6f %.*s\n", c->status, now / 1e9, n, id ? id : "");
    }
    if (c->is_slow || header_of(c->head, c->head_len, "\r\nconnection: close")) {
        hang_up(c);
    } else {
        num_busy--;
        c->state = IDLE;
        c->idle_ns = now;
        c->next = idle;
        idle = c;
    }
    if (conns && now < end_ns) ask(now, now);
}

/* Read on in a body; 1 when it has ended, -1 when it is broken. */
static int read_body(Conn *c, const char *data, size_t len) {
    if (len && !c->first_ns) c->first_ns = now_ns();
    if (c->part == PLAIN) {
        c->left -= len < c->left ? len : c->left;
        return c->left == 0;
    }
    for (size_t i = 0; i < len; i++) {
        if (c->part == DATA) {
            size_t n = len - i < c->left ? len - i : c->left;
            i += n - 1;
            if (!(c->left -= n)) c->part = DATA_END;
        } else if (c->part == SIZE && data[i] != '\n') {
            int digit = data[i] >= 'a' ? data[i] - 'a' + 10 : data[i] >= 'A' ? data[i] - 'A' + 10
                                                                            : data[i] - '0';
            if (data[i] != '\r') c->left = c->left * 16 + digit;
        } else if (c->part == SIZE) {
            c->part = c->left ? DATA : TRAILER;
            c->line_len = 0;
        } else if (c->part == DATA_END) {
            if (data[i] == '\n') c->part = SIZE;
        } else if (data[i] == '\n') {
            if (!c->line_len) return i + 1 == len ? 1 : -1;
            c->line_len = 0;
        } else if (data[i] != '\r') {
            c->line_len++;
        }
    }
    return 0;
}

static int read_head(Conn *c, const char *data, size_t len) { /* bytes used, or -1 */
    size_t before = c->head_len, room = HEAD_BYTES - 1 - before, n = len < room ? len : room;
    memcpy(c->head + before, data, n);
    c->head_len += n;
    char *end = memmem(c->head, c->head_len, "\r\n\r\n", 4);
    if (!end) return n < len ? -1 : (int)n;
    c->head_len = end + 4 - c->head;
    c->head[c->head_len] = 0;
    c->status = atoi(c->head + 9);
    const char *length = header_of(c->head, c->head_len, "\r\ncontent-length: ");
    if (!length && !header_of(c->head, c->head_len, "\r\ntransfer-encoding: chunked")) return -1;
    c->part = length ? PLAIN : SIZE;
    c->left = length ? strtoul(length, NULL, 10) : 0;
    c->state = BODY;
    return c->head_len - before;
}

static void sip_later(Conn *c) {
    watch(epoll, EPOLL_CTL_MOD, c->fd, 0, c);
    c->is_sipping = 1;
    c->sip_ns = now_ns() + SIP_NS;
    c->next = sipping;
    sipping = c;
}

static void read_in(Conn *c) {
    static char data[READ_BYTES];
    for (;;) {
        ssize_t n = read(c->fd, data, c->is_slow ? SIP_BYTES : READ_BYTES);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0 || c->state == IDLE) { fail(c); return; }
        read_bytes += n;
        ssize_t used = 0;
        if (c->state != BODY) {
            used = read_head(c, data, n);
            if (used < 0) { fail(c); return; }
            if (c->state != BODY) continue;
        }
        int is_over = read_body(c, data + used, n - used);
        if (is_over < 0) { fail(c); return; }
        if (c->leaves && c->first_ns) { leave_it(c); return; }
        if (is_over) { finish(c); return; }
        if (c->is_slow) { sip_later(c); return; }
    }
}

static void handle(Conn *c, uint32_t what) {
    if (c->is_dead || c->is_sipping) {
        if (!c->is_dead && what & (EPOLLHUP | EPOLLERR)) fail(c);
        return;
    }
    if (c->state == CONNECTING && what & (EPOLLOUT | EPOLLERR | EPOLLHUP)) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        c->state = WAITING;
        if (error) { fail(c); return; }
    }
    if (what & EPOLLOUT && !write_out(c)) return;
    if (what & (EPOLLIN | EPOLLHUP | EPOLLERR)) read_in(c);
}

static void sip(int64_t now) {
    Conn *due = sipping;
    sipping = NULL;
    while (due) {
        Conn *c = due;
        due = c->next;
        c->next = NULL;
        if (c->sip_ns > now) {
            c->next = sipping;
            sipping = c;
        } else {
            c->is_sipping = 0;
            watch(epoll, EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
        }
    }
}

static void run(void) {
    static struct epoll_event events[EVENTS];
    start_ns = now_ns();
    warm_ns = start_ns + warm_s * 1e9;
    end_ns = start_ns + seconds * 1e9;
    for (int i = 0; i < conns; i++) ask(start_ns, start_ns);
    for (;;) {
        int64_t now = now_ns(), next = start_ns + 1e9 / (rate ? rate : 1) * issued;
        while (rate && next <= now && next < end_ns && ask(next, now))
            next = start_ns + 1e9 / rate * issued;
        while (conns && now < end_ns && num_busy < conns && ask(now, now)) {} /* after a failure */
        if (now >= end_ns && (!num_busy || now >= end_ns + DRAIN_NS)) return;
        int64_t due = rate && next > now && next < end_ns ? next : now + 5000000;
        if (sipping && due > now + SIP_NS / 4) due = now + SIP_NS / 4;
        int n = wait_until(epoll, events, due);
        for (int i = 0; i < n; i++) handle(events[i].data.ptr, events[i].events);
        if (sipping) sip(now_ns());
        while (gone) { Conn *c = gone; gone = c->next; free(c); }
    }
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_times(const char *name, void *of) {
    typeof(whole) *all = of;
    static const double fracs[] = {.5, .95, .99, 1};
    static const char *names[] = {"p50", "p95", "p99", "max"};
    qsort(all->ms, all->n, sizeof *all->ms, by_size);
    for (int i = 0; i < 4; i++) {
        size_t at = all->n ? (size_t)(fracs[i] * (all->n - 1) + 0.5) : 0;
        printf(", \"%s_%s_ms\": %.4f", name, names[i], all->n ? all->ms[at] : 0.0);
    }
}

static void report(void) {
    int64_t now = now_ns();
    double span = (end_ns - warm_ns) / 1e9;
    unanswered = rate ? (long)(rate * (seconds - warm_s)) - (long)whole.n - errors - left_early : 0;
    if (unanswered < 2) unanswered = 0; /* the edges of the window */
    for (long i = 0; i < unanswered; i++) note_ms(&whole, now - end_ns), note_ms(&first, now - end_ns);
    printf("{\"answers\": %ld, \"done\": %zu, \"errors\": %ld, \"non_200\": %ld, \"left\": %ld, \"unanswered\": %ld, "
           "\"seconds\": %.3f, \"rps\": %.2f, \"read_bytes\": %lld, \"issued\": %lld",
           answers, whole.n - unanswered, errors, non_200, left_early, unanswered, span, done_in_time / span,
           (long long)read_bytes, (long long)issued);
    print_times("whole", &whole);
    print_times("first", &first);
    printf("}\n");
}

static void make_requests(void) {
    for (int i = 0; i < num_bodies; i++) {
        FILE *file = fopen(body_files[i], "rb");
        if (!file) die(body_files[i]);
        fseek(file, 0, SEEK_END);
        size_t size = ftell(file);
        rewind(file);
        char *to = requests[i].data = malloc(size + sizeof headers + 512);
        int n = sprintf(to, "POST %s HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: application/json\r\n"
                            "%scontent-length: %zu\r\n\r\n", path, port, headers, size);
        if (fread(to + n, 1, size, file) != size) die(body_files[i]);
        requests[i].len = n + size;
        fclose(file);
    }
}

static int read_option(const char *name, char *value) {
    if (!strcmp(name, "--port")) port = atoi(value);
    else if (!strcmp(name, "--path")) path = value;
    else if (!strcmp(name, "--rate")) rate = atof(value);
    else if (!strcmp(name, "--conns")) conns = atoi(value);
    else if (!strcmp(name, "--seconds")) seconds = atof(value);
    else if (!strcmp(name, "--warm-s")) warm_s = atof(value);
    else if (!strcmp(name, "--max-conns")) max_conns = atoi(value);
    else if (!strcmp(name, "--leave")) leave = atof(value);
    else if (!strcmp(name, "--slow")) slow = atof(value);
    else if (!strcmp(name, "--log")) log_path = value;
    else if (!strcmp(name, "--seed")) random_state ^= strtoull(value, NULL, 10) * 2654435761u;
    else if (!strcmp(name, "--body") && num_bodies < 64) body_files[num_bodies++] = value;
    else if (!strcmp(name, "--header") && strlen(headers) + strlen(value) + 3 < sizeof headers)
        strcat(strcat(headers, value), "\r\n");
    else return 0;
    return 1;
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i += 2)
        if (i + 1 == argc || !read_option(argv[i], argv[i + 1]))
            return fprintf(stderr, "load: cannot use %s\n", argv[i]), 2;
    if (!port || !num_bodies || seconds <= warm_s || (rate > 0) == (conns > 0))
        return fprintf(stderr, "load: --port, --body, --seconds, and --rate or --conns\n"), 2;
    set_up_process();
    make_requests();
    if (log_path && !(log_file = fopen(log_path, "w"))) die(log_path);
    if (conns > max_conns) max_conns = conns;
    epoll = epoll_create1(0);
    run();
    if (log_file) fclose(log_file);
    report();
    return 0;
}
