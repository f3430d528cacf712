/* A generator of load: one thread, one epoll, as many clients as are asked for, percentiles of every single time.

   load requests --port N --body FILE [--clients N] [--seconds N] [--warm-up N]
       Each client sends its next request when the last one has been answered, over one connection.
   load streams --port N --body FILE [--clients N] [--deadline N] [--spread N]
       Each client sends one request, all at once (or spread over so many seconds), and reads its events.
   load hold --port N [--body FILE] [--clients N] [--answered 1]
       Each client opens a connection, sends its request if there is one, and waits until standard input ends.

   All take --path and --header (at most one, such as "Authorization: Bearer x"). Standard output has one JSON object;
   of `hold` a line `ready` before: once all are connected, or with --answered, answered. Times are milliseconds. */
#include "common.h"

enum mode { REQUESTS, STREAMS, HOLD };
enum phase { CONNECTING, SENDING, HEAD, SIZE, CHUNK, CHUNK_END, LENGTH, UNTIL_CLOSE, TRAILER, FINISHED, FAILED };

struct client {
    int fd, status, failures;
    enum phase phase;
    bool reusable, said_done, watched;
    struct buffer in;
    size_t sent, left; /* bytes of the request that have been sent; bytes of this chunk or body to come */
    double began, last; /* when its request began; when its last event arrived */
    size_t line; /* how many bytes of the beginning of this line fit "data: [DONE]" */
    size_t column; /* bytes of this line so far */
    long events;
};

struct times {
    float *values;
    size_t count, size;
};

static enum mode mode;
static struct buffer request;
static int port, poller;
static size_t active;
static double measured_from;
static struct times latencies, firsts, gaps;
static long statuses[600], closed, unfinished, complete, all_events, connections;

static void add_time(struct times *times, double seconds) {
    if (times->count == times->size) {
        times->size = times->size * 2 + 4096;
        times->values = realloc(times->values, times->size * sizeof *times->values);
        if (times->values == NULL) die("memory");
    }
    times->values[times->count++] = (float)(seconds * 1000);
}

static int compare_floats(const void *one, const void *other) {
    float difference = *(const float *)one - *(const float *)other;
    return (difference > 0) - (difference < 0);
}

static void print_times(const char *name, struct times *times) {
    static const double shares[] = {0.5, 0.9, 0.99, 0.999, 1};
    static const char *const names[] = {"p50", "p90", "p99", "p999", "max"};
    if (times->count > 0) qsort(times->values, times->count, sizeof *times->values, compare_floats);
    printf("\"%s\":{\"count\":%zu", name, times->count);
    for (size_t index = 0; index < sizeof shares / sizeof *shares && times->count > 0; index++) {
        size_t place = (size_t)(shares[index] * (double)times->count);
        printf(",\"%s\":%.4f", names[index], (double)times->values[place < times->count ? place : times->count - 1]);
    }
    printf("}");
}

/* --- Connections --- */

static void watch(struct client *client, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = client};
    if (epoll_ctl(poller, client->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, client->fd, &event) < 0) die("epoll_ctl");
    client->watched = true;
}

static void start(struct client *client);

static void hang_up(struct client *client) {
    if (client->fd >= 0) close(client->fd);
    client->fd = -1;
    client->watched = false;
    client->in.start = client->in.end = 0;
}

static void open_connection(struct client *client) {
    struct sockaddr_in address = loopback(port);
    client->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (client->fd < 0) die("socket");
    prepare_socket(client->fd);
    connections++;
    client->phase = CONNECTING;
    if (connect(client->fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS) die("connect");
    watch(client, EPOLLOUT);
}

/* The client is done with its request, well or badly; send the next one, where there are more to send. */
static void end_request(struct client *client, bool well) {
    client->phase = well ? FINISHED : FAILED;
    client->failures = well ? 0 : client->failures + 1;
    if (!well || !client->reusable || mode == STREAMS) hang_up(client);
    if (mode == REQUESTS && client->failures < 50) start(client);
    else active--;
}

static void fail(struct client *client) {
    closed++;
    end_request(client, false);
}

static void send_request(struct client *client) {
    if (mode == HOLD && buffer_length(&request) == 0) {
        client->phase = HEAD;
        watch(client, EPOLLIN);
        return;
    }
    while (client->sent < buffer_length(&request)) {
        ssize_t sent = send(client->fd, buffer_head(&request) + client->sent, buffer_length(&request) - client->sent,
                            MSG_NOSIGNAL);
        if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            client->phase = SENDING;
            watch(client, EPOLLOUT | EPOLLIN);
            return;
        }
        if (sent < 0) {
            fail(client);
            return;
        }
        client->sent += (size_t)sent;
    }
    if (client->phase != HEAD) watch(client, EPOLLIN);
    client->phase = HEAD;
}

static void start(struct client *client) {
    client->began = now();
    client->sent = client->left = client->line = client->column = 0;
    client->events = 0;
    client->said_done = false;
    if (client->fd < 0) {
        open_connection(client);
    } else {
        client->phase = HEAD; /* the socket is watched for reading already */
        send_request(client);
    }
}

/* --- What arrives --- */

/* Look for events in the bytes of a body. Lines that begin with "data:" count; comments do not. */
static void read_events(struct client *client, const char *bytes, size_t length, double moment) {
    static const char done[] = "data: [DONE]";
    bool arrived = false;
    for (size_t index = 0; index < length; index++) {
        char byte = bytes[index];
        if (byte == '\n') {
            client->line = client->column = 0;
            continue;
        }
        if (client->line == client->column && client->line < sizeof done - 1 && byte == done[client->line]) {
            client->line++;
            if (client->line == 5) {
                client->events++;
                arrived = true;
            }
            if (client->line == sizeof done - 1) client->said_done = true;
        }
        client->column++;
    }
    if (!arrived) return;
    if (client->last < client->began) add_time(&firsts, moment - client->began);
    else add_time(&gaps, moment - client->last);
    client->last = moment;
}

static void end_response(struct client *client) {
    double moment = now();
    if (client->status >= 0 && client->status < 600) statuses[client->status]++;
    all_events += client->events;
    if (client->status != 200) {
        end_request(client, false);
        return;
    }
    if (mode == STREAMS) complete += client->said_done;
    if (client->began >= measured_from) add_time(&latencies, moment - client->began);
    end_request(client, true);
}

/* Read the head of a response. Returns false where it is not whole. */
static bool read_head(struct client *client) {
    const char *head = buffer_head(&client->in), *end = memmem(head, buffer_length(&client->in), "\r\n\r\n", 4);
    if (end == NULL) return false;
    const char *length = find_header(head, end, "Content-Length");
    const char *coding = find_header(head, end, "Transfer-Encoding");
    const char *persistence = find_header(head, end, "Connection");
    client->status = atoi(head + 9);
    client->reusable = persistence == NULL || strncasecmp(persistence, "close", 5) != 0;
    if (coding != NULL && strncasecmp(coding, "chunked", 7) == 0) {
        client->phase = SIZE;
    } else if (length != NULL) {
        client->left = strtoul(length, NULL, 10);
        client->phase = LENGTH;
    } else {
        client->reusable = false;
        client->phase = UNTIL_CLOSE;
    }
    client->in.start += (size_t)(end + 4 - head);
    return true;
}

/* Take one line of a chunked body: a chunk's size, the end of a chunk, or a trailer. False where it is not whole. */
static bool read_line(struct client *client) {
    const char *line = buffer_head(&client->in), *end = memchr(line, '\n', buffer_length(&client->in));
    if (end == NULL) return false;
    bool empty = end == line || (end == line + 1 && *line == '\r');
    if (client->phase == SIZE) {
        client->left = strtoul(line, NULL, 16);
        client->phase = client->left > 0 ? CHUNK : TRAILER;
    } else if (client->phase == CHUNK_END) {
        client->phase = SIZE;
    } else if (empty) {
        client->phase = FINISHED;
    }
    client->in.start += (size_t)(end + 1 - line);
    return true;
}

static bool read_body(struct client *client, double moment) {
    size_t length = buffer_length(&client->in);
    if (client->phase != UNTIL_CLOSE && length > client->left) length = client->left;
    if (length == 0 && client->left > 0) return false;
    if (mode == STREAMS) read_events(client, buffer_head(&client->in), length, moment);
    client->in.start += length;
    if (client->phase == UNTIL_CLOSE) return false;
    client->left -= length;
    if (client->left == 0) client->phase = client->phase == CHUNK ? CHUNK_END : FINISHED;
    return true;
}

static bool read_part(struct client *client, double moment) {
    switch (client->phase) {
    case HEAD: return read_head(client);
    case SIZE: case CHUNK_END: case TRAILER: return read_line(client);
    case CHUNK: case LENGTH: case UNTIL_CLOSE: return read_body(client, moment);
    default: return false;
    }
}

static void receive(struct client *client) {
    bool open = buffer_read(&client->in, client->fd);
    double moment = now();
    while (client->phase != FINISHED && read_part(client, moment)) continue;
    if (client->phase == FINISHED || (!open && client->phase == UNTIL_CLOSE)) end_response(client);
    else if (!open) fail(client);
}

static void handle(struct client *client, uint32_t events) {
    if (client->fd < 0) return;
    if (client->phase == CONNECTING && (events & (EPOLLERR | EPOLLHUP))) fail(client);
    else if (client->phase == CONNECTING || (client->phase == SENDING && (events & EPOLLOUT))) send_request(client);
    else receive(client);
}

/* --- The three ways --- */

static void handle_events(double until) {
    struct epoll_event events[512];
    double left = until - now();
    int ready = epoll_wait(poller, events, 512, left <= 0 ? 0 : left < 1 ? (int)(left * 1000) + 1 : 1000);
    if (ready < 0 && errno != EINTR) die("epoll_wait");
    for (int index = 0; index < ready; index++)
        if (events[index].data.ptr != NULL) handle(events[index].data.ptr, events[index].events);
}

static void print_counts(double seconds) {
    printf("\"seconds\":%.4f,\"connections\":%ld,\"closed\":%ld,\"unfinished\":%ld,\"statuses\":{", seconds, connections,
           closed, unfinished);
    for (int status = 0, first = 1; status < 600; status++) {
        if (statuses[status] == 0) continue;
        printf("%s\"%d\":%ld", first ? "" : ",", status, statuses[status]);
        first = 0;
    }
    printf("}");
}

static void send_requests(struct client *clients, size_t count, double seconds, double warm_up) {
    double began = now(), until = began + warm_up + seconds;
    measured_from = began + warm_up;
    for (size_t index = 0; index < count; index++) start(&clients[index]);
    while (active > 0 && now() < until) handle_events(until);
    unfinished = (long)active;
    printf("{");
    print_counts(seconds);
    printf(",\"per_second\":%.3f,", (double)latencies.count / seconds);
    print_times("latency", &latencies);
    printf("}\n");
}

static void read_streams(struct client *clients, size_t count, double deadline, double spread) {
    double began = now(), until = began + deadline;
    size_t started = 0;
    while ((started < count || active > 0) && now() < until) {
        double step = spread / (double)count;
        while (started < count && now() >= began + step * (double)started) start(&clients[started++]);
        handle_events(started < count ? began + step * (double)started : until);
    }
    unfinished = (long)active;
    double seconds = now() - began;
    for (size_t index = 0; index < count; index++)
        if (clients[index].phase < FINISHED) all_events += clients[index].events;
    printf("{");
    print_counts(seconds);
    printf(",\"streams\":%zu,\"complete\":%ld,\"events\":%ld,", count, complete, all_events);
    print_times("first", &firsts);
    printf(",");
    print_times("gap", &gaps);
    printf(",");
    print_times("latency", &latencies);
    printf("}\n");
}

static void hold_connections(struct client *clients, size_t count, enum phase held) {
    double began = now();
    struct epoll_event event = {.events = EPOLLIN | EPOLLHUP, .data.ptr = NULL};
    fcntl(STDIN_FILENO, F_SETFL, fcntl(STDIN_FILENO, F_GETFL) | O_NONBLOCK);
    if (epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &event) < 0) die("standard input");
    for (size_t index = 0; index < count; index++) {
        start(&clients[index]);
        if (index % 64 == 63) handle_events(now());
    }
    bool said = false;
    for (char byte; read(STDIN_FILENO, &byte, 1) != 0;) {
        handle_events(now() + 0.05);
        size_t waiting = 0;
        for (size_t index = 0; !said && index < count; index++) waiting += clients[index].phase >= held;
        if (!said && waiting == count) {
            said = true;
            printf("ready\n");
            fflush(stdout);
        }
    }
    unfinished = (long)active;
    printf("{");
    print_counts(now() - began);
    printf("}\n");
}

static void make_request(int count, char **words) {
    const char *file = option(count, words, "--body", NULL), *header = option(count, words, "--header", NULL);
    if (file == NULL) return;
    struct buffer body = {0};
    int fd = open(file, O_RDONLY);
    if (fd < 0) die(file);
    buffer_read(&body, fd);
    close(fd);
    buffer_format(&request,
                  "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
                  "Content-Length: %zu\r\n%s%s\r\n",
                  option(count, words, "--path", "/v1/chat/completions"), port, buffer_length(&body),
                  header == NULL ? "" : header, header == NULL ? "" : "\r\n");
    buffer_add(&request, buffer_head(&body), buffer_length(&body));
}

int main(int count, char **words) {
    const char *what = count > 1 ? words[1] : "";
    size_t clients = (size_t)number_option(count, words, "--clients", 1);
    mode = strcmp(what, "streams") == 0 ? STREAMS : strcmp(what, "hold") == 0 ? HOLD : REQUESTS;
    port = (int)number_option(count, words, "--port", 0);
    if (port == 0 || (mode == REQUESTS && strcmp(what, "requests") != 0)) {
        fprintf(stderr, "load requests|streams|hold --port N --body FILE ...\n");
        return 2;
    }
    make_request(count, words);
    raise_file_limit();
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct client *all = calloc(clients, sizeof *all);
    if (all == NULL) die("memory");
    for (size_t index = 0; index < clients; index++) all[index].fd = -1;
    active = clients;
    double seconds = number_option(count, words, "--seconds", 5);
    if (mode == REQUESTS) send_requests(all, clients, seconds, number_option(count, words, "--warm-up", 1));
    else if (mode == HOLD) hold_connections(all, clients, number_option(count, words, "--answered", 0) > 0 ? FINISHED : HEAD);
    else read_streams(all, clients, number_option(count, words, "--deadline", 60),
                      number_option(count, words, "--spread", 0));
    return 0;
}
