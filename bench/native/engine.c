/* A fake model server that speaks llama.cpp's protocol as fast as a socket allows: one thread, one epoll.

   engine [--port N] [--tokens N] [--rate N] [--wait-ms N] [--context N] [--distinct 1] [--die-with-parent 1]

   It prints its port, and serves loopback until it, or with --die-with-parent its parent, is ended: GET /health,
   /v1/models, /props, /slots, /metrics; POST /v1/chat/completions, /v1/completions, /apply-template, /tokenize. An
   answer has `--tokens` tokens, or as many as the request's max_tokens says, at `--rate` tokens a second (0: all at
   once), the first after `--wait-ms`. With --distinct the first word of each answer is another one. Words `tokens=N`, `rate=N` and `wait=N` in the text of a request count more, so
   that they pass any proxy. */
#include "common.h"

#include <sys/prctl.h>

#define MODEL "fake-engine"
#define LARGEST_BODY (64u << 20)
#define NOT_WAITING ((size_t)-1)
static const char WORD[] = " word";

struct generation {
    bool streams, usage, timings, legacy;
    long tokens, sent, number;
    double rate, began, due; /* `due`: when the next thing is to be sent */
};

struct connection {
    int fd;
    bool closing, wants_writing;
    struct buffer in, out;
    struct generation now;
    size_t place; /* in the heap, or NOT_WAITING */
};

static struct {
    long tokens, context;
    double rate, wait;
    bool distinct;
} settings;
static int poller;
static long generations;

/* --- The connections that wait for a moment: a heap by that moment. --- */

static struct connection **heap;
static size_t heap_count, heap_size;

static void heap_put(size_t place, struct connection *connection) {
    heap[place] = connection;
    connection->place = place;
}

static void heap_sift(size_t place, struct connection *connection) {
    while (place > 0 && heap[(place - 1) / 2]->now.due > connection->now.due) {
        heap_put(place, heap[(place - 1) / 2]);
        place = (place - 1) / 2;
    }
    for (size_t child = 2 * place + 1; child < heap_count; child = 2 * place + 1) {
        if (child + 1 < heap_count && heap[child + 1]->now.due < heap[child]->now.due) child++;
        if (heap[child]->now.due >= connection->now.due) break;
        heap_put(place, heap[child]);
        place = child;
    }
    heap_put(place, connection);
}

static void await_moment(struct connection *connection) {
    if (connection->place == NOT_WAITING) {
        if (heap_count == heap_size) {
            heap_size = heap_size * 2 + 64;
            heap = realloc(heap, heap_size * sizeof *heap);
            if (heap == NULL) die("memory");
        }
        heap_sift(heap_count++, connection);
    } else {
        heap_sift(connection->place, connection);
    }
}

static void await_nothing(struct connection *connection) {
    if (connection->place == NOT_WAITING) return;
    size_t place = connection->place;
    struct connection *last = heap[--heap_count];
    connection->place = NOT_WAITING;
    if (last != connection) heap_sift(place, last);
}

/* --- What is sent --- */

static void respond(struct connection *connection, const char *status, const char *type, const char *body, size_t size) {
    buffer_format(&connection->out,
                  "HTTP/1.1 %s\r\nServer: llama.cpp\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
                  "Keep-Alive: timeout=5, max=100\r\n\r\n",
                  status, type, size);
    buffer_add(&connection->out, body, size);
}

static void respond_json(struct connection *connection, const char *status, const char *body) {
    respond(connection, status, "application/json; charset=utf-8", body, strlen(body));
}

static void add_timings(struct buffer *out, const struct generation *now, long tokens) {
    double ms = now->rate > 0 ? (double)tokens * 1000 / now->rate : 0.1;
    buffer_format(out,
                  ",\"timings\":{\"cache_n\":0,\"prompt_n\":12,\"prompt_ms\":1.0,\"prompt_per_token_ms\":0.083,"
                  "\"prompt_per_second\":12000.0,\"predicted_n\":%ld,\"predicted_ms\":%.3f,"
                  "\"predicted_per_token_ms\":%.6f,\"predicted_per_second\":%.6f}",
                  tokens, ms, tokens ? ms / (double)tokens : 0.0, (double)tokens * 1000 / ms);
}

static void add_usage(struct buffer *out, long tokens) {
    buffer_format(out,
                  ",\"usage\":{\"completion_tokens\":%ld,\"prompt_tokens\":12,\"total_tokens\":%ld,"
                  "\"prompt_tokens_details\":{\"cached_tokens\":0}}",
                  tokens, tokens + 12);
}

static void add_identity(struct buffer *out, const struct generation *now, const char *object) {
    buffer_format(out,
                  ",\"created\":%ld,\"id\":\"%s%032lx\",\"model\":\"" MODEL
                  "\",\"system_fingerprint\":\"b0-unknown\",\"object\":\"%s\"",
                  (long)time(NULL), now->legacy ? "cmpl-" : "chatcmpl-", now->number, object);
}

/* Add a token of an answer, as it stands in JSON. */
static void add_token(struct buffer *out, const struct generation *now, long token) {
    if (token == 0 && settings.distinct) buffer_format(out, " word%ld", now->number);
    else buffer_add(out, WORD, sizeof WORD - 1);
}

static void send_whole(struct connection *connection) {
    struct generation *now = &connection->now;
    struct buffer body = {0};
    buffer_format(&body, "{\"choices\":[{\"finish_reason\":\"length\",\"index\":0,");
    buffer_format(&body, now->legacy ? "\"text\":\"" : "\"message\":{\"role\":\"assistant\",\"content\":\"");
    for (long token = 0; token < now->tokens; token++) add_token(&body, now, token);
    buffer_format(&body, now->legacy ? "\"}]" : "\"}}]");
    add_identity(&body, now, now->legacy ? "text_completion" : "chat.completion");
    add_usage(&body, now->tokens);
    add_timings(&body, now, now->tokens);
    buffer_add(&body, "}", 1);
    respond(connection, "200 OK", "application/json; charset=utf-8", buffer_head(&body), buffer_length(&body));
    buffer_free(&body);
}

/* Add one chunk of the transfer coding, of what `events` holds. */
static void add_chunk(struct buffer *out, struct buffer *events) {
    buffer_format(out, "%zx\r\n", buffer_length(events));
    buffer_add(out, buffer_head(events), buffer_length(events));
    buffer_add(out, "\r\n", 2);
    events->start = events->end = 0;
}

static void add_event(struct buffer *events, const struct generation *now, const char *delta, const char *reason) {
    buffer_format(events, "data: {\"choices\":[{\"finish_reason\":%s,\"index\":0,%s}]", reason, delta);
    add_identity(events, now, now->legacy ? "text_completion" : "chat.completion.chunk");
}

static void send_token(struct connection *connection, struct buffer *events) {
    struct generation *now = &connection->now;
    if (now->sent == 0 && !now->legacy) {
        add_event(events, now, "\"delta\":{\"role\":\"assistant\",\"content\":null}", "null");
        buffer_add(events, "}\n\n", 3);
    }
    static struct buffer token, delta;
    token.start = token.end = delta.start = delta.end = 0;
    add_token(&token, now, now->sent++);
    buffer_add(&token, "", 1);
    buffer_format(&delta, now->legacy ? "\"text\":\"%s\"" : "\"delta\":{\"content\":\"%s\"}", buffer_head(&token));
    buffer_add(&delta, "", 1);
    add_event(events, now, buffer_head(&delta), "null");
    if (now->timings) add_timings(events, now, now->sent);
    buffer_add(events, "}\n\n", 3);
    add_chunk(&connection->out, events);
}

static void send_end(struct connection *connection, struct buffer *events) {
    struct generation *now = &connection->now;
    add_event(events, now, now->legacy ? "\"text\":\"\"" : "\"delta\":{}", "\"length\"");
    if (now->usage) {
        buffer_format(events, "}\n\ndata: {\"choices\":[]");
        add_identity(events, now, now->legacy ? "text_completion" : "chat.completion.chunk");
        add_usage(events, now->tokens);
    }
    add_timings(events, now, now->tokens);
    buffer_add(events, "}\n\n", 3);
    add_chunk(&connection->out, events);
    buffer_format(events, "data: [DONE]\n\n");
    add_chunk(&connection->out, events);
    buffer_add(&connection->out, "0\r\n\r\n", 5);
}

/* Send what is due of a generation; have the connection wait for the rest. */
static void advance(struct connection *connection, double moment) {
    static struct buffer events;
    struct generation *now = &connection->now;
    if (!now->streams) {
        send_whole(connection);
        await_nothing(connection);
        return;
    }
    while (now->sent < now->tokens && now->due <= moment) {
        send_token(connection, &events);
        now->due = now->rate > 0 ? now->began + (double)now->sent / now->rate : 0;
    }
    if (now->sent < now->tokens) {
        await_moment(connection);
    } else {
        send_end(connection, &events);
        await_nothing(connection);
    }
}

/* --- What is asked --- */

/* The number after `"name":` in a JSON text, or a default. */
static double number_field(const char *body, size_t size, const char *name, double otherwise) {
    char key[64];
    int length = snprintf(key, sizeof key, "\"%s\":", name);
    const char *found = memmem(body, size, key, (size_t)length);
    return found == NULL ? otherwise : atof(found + length);
}

static bool true_field(const char *body, size_t size, const char *name) {
    char key[64];
    int length = snprintf(key, sizeof key, "\"%s\":", name);
    const char *found = memmem(body, size, key, (size_t)length);
    if (found == NULL) return false;
    found += length;
    while (*found == ' ') found++;
    return strncmp(found, "true", 4) == 0;
}

static double word_in(const char *body, size_t size, const char *word, double otherwise) {
    const char *found = memmem(body, size, word, strlen(word));
    return found == NULL ? otherwise : atof(found + strlen(word));
}

static void generate(struct connection *connection, const char *body, size_t size, bool legacy) {
    double moment = now();
    struct generation *new = &connection->now;
    memset(new, 0, sizeof *new);
    new->legacy = legacy;
    new->number = ++generations;
    new->streams = true_field(body, size, "stream");
    new->usage = true_field(body, size, "include_usage");
    new->timings = true_field(body, size, "timings_per_token");
    double asked = number_field(body, size, "max_tokens", (double)settings.tokens);
    new->tokens = (long)word_in(body, size, "tokens=", asked > 0 ? asked : (double)settings.tokens);
    new->rate = word_in(body, size, "rate=", settings.rate);
    new->began = moment + word_in(body, size, "wait=", settings.wait * 1000) / 1000;
    new->due = new->began;
    if (!new->streams && new->rate > 0) new->due += (double)new->tokens / new->rate;
    if (new->streams)
        buffer_format(&connection->out,
                      "HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nX-Accel-Buffering: no\r\n"
                      "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
                      "Keep-Alive: timeout=5, max=100\r\n\r\n");
    if (new->due > moment) await_moment(connection);
    else advance(connection, moment);
}

static void show_models(struct connection *connection) {
    char body[1024];
    snprintf(body, sizeof body,
             "{\"models\":[{\"name\":\"" MODEL "\",\"model\":\"" MODEL "\",\"type\":\"model\"}],\"object\":\"list\","
             "\"data\":[{\"id\":\"" MODEL "\",\"aliases\":[\"" MODEL "\"],\"tags\":[],\"object\":\"model\","
             "\"created\":1,\"owned_by\":\"llamacpp\",\"meta\":{\"vocab_type\":2,\"n_vocab\":32000,\"n_ctx\":%ld,"
             "\"n_ctx_train\":%ld,\"n_embd\":4096,\"n_params\":7000000000,\"size\":4000000000}}]}",
             settings.context, settings.context);
    respond_json(connection, "200 OK", body);
}

static void show_properties(struct connection *connection) {
    char body[1024];
    snprintf(body, sizeof body,
             "{\"default_generation_settings\":{\"params\":{},\"n_ctx\":%ld},\"total_slots\":4,"
             "\"model_alias\":\"" MODEL "\",\"model_path\":\"/" MODEL ".gguf\",\"modalities\":{\"vision\":false,"
             "\"audio\":false},\"endpoint_slots\":true,\"chat_template\":\"{{ messages }}\",\"chat_template_caps\":"
             "{\"supports_system_role\":true},\"bos_token\":\"<s>\",\"eos_token\":\"</s>\",\"build_info\":"
             "\"b0-unknown\"}",
             settings.context);
    respond_json(connection, "200 OK", body);
}

static void show_slots(struct connection *connection) {
    char body[256];
    int length = snprintf(body, sizeof body, "[");
    for (int slot = 0; slot < 4; slot++)
        length += snprintf(body + length, sizeof body - (size_t)length,
                           "%s{\"id\":%d,\"n_ctx\":%ld,\"is_processing\":%s}", slot ? "," : "", slot, settings.context,
                           (size_t)slot < heap_count ? "true" : "false");
    snprintf(body + length, sizeof body - (size_t)length, "]");
    respond_json(connection, "200 OK", body);
}

static bool is(const char *request, const char *line) { return strncmp(request, line, strlen(line)) == 0; }

static void answer(struct connection *connection, const char *head, const char *body, size_t size) {
    if (is(head, "POST /v1/chat/completions ")) generate(connection, body, size, false);
    else if (is(head, "POST /v1/completions ")) generate(connection, body, size, true);
    else if (is(head, "GET /health ")) respond_json(connection, "200 OK", "{\"status\":\"ok\"}");
    else if (is(head, "GET /v1/models ")) show_models(connection);
    else if (is(head, "GET /props ")) show_properties(connection);
    else if (is(head, "GET /slots ")) show_slots(connection);
    else if (is(head, "GET /metrics ")) respond(connection, "200 OK", "text/plain; version=0.0.4", "", 0);
    else if (is(head, "POST /apply-template ")) respond_json(connection, "200 OK", "{\"prompt\":\"prompt\"}");
    else if (is(head, "POST /tokenize ")) respond_json(connection, "200 OK", "{\"tokens\":[1,2,3]}");
    else
        respond_json(connection, "404 Not Found",
                     "{\"error\":{\"code\":404,\"message\":\"File Not Found\",\"type\":\"not_found_error\"}}");
}

/* Answer the next request of a connection, once it is whole. Returns whether there was one. */
static bool take_request(struct connection *connection) {
    struct buffer *in = &connection->in;
    if (connection->place != NOT_WAITING || connection->closing || buffer_length(in) == 0) return false;
    const char *head = buffer_head(in), *end = memmem(head, buffer_length(in), "\r\n\r\n", 4);
    if (end == NULL) return false;
    const char *length = find_header(head, end, "Content-Length");
    const char *persistence = find_header(head, end, "Connection");
    size_t head_size = (size_t)(end + 4 - head), size = length == NULL ? 0 : strtoul(length, NULL, 10);
    if (size > LARGEST_BODY || find_header(head, end, "Transfer-Encoding") != NULL) {
        respond_json(connection, "400 Bad Request", "{\"error\":{\"code\":400,\"message\":\"no length\"}}");
        connection->closing = true;
        return false;
    }
    if (buffer_length(in) < head_size + size) {
        buffer_reserve(in, head_size + size + 1 - buffer_length(in));
        return false;
    }
    connection->closing = persistence != NULL && strncasecmp(persistence, "close", 5) == 0;
    buffer_reserve(in, 1);
    head = buffer_head(in);
    char *after = buffer_head(in) + head_size + size, kept = *after;
    *after = '\0'; /* numbers are read up to here */
    answer(connection, head, head + head_size, size);
    *after = kept;
    in->start += head_size + size;
    return true;
}

/* --- Connections --- */

static void watch(struct connection *connection, int operation, bool writing) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | (writing ? EPOLLOUT : 0u), .data.ptr = connection};
    if (epoll_ctl(poller, operation, connection->fd, &event) < 0) die("epoll_ctl");
    connection->wants_writing = writing;
}

static void close_connection(struct connection *connection) {
    await_nothing(connection);
    close(connection->fd);
    buffer_free(&connection->in);
    buffer_free(&connection->out);
    free(connection);
}

/* Send what is there. Returns false where the connection has been closed. */
static bool flush(struct connection *connection) {
    bool broken = !buffer_write(&connection->out, connection->fd), rest = buffer_length(&connection->out) > 0;
    if (broken || (connection->closing && !rest && connection->place == NOT_WAITING)) {
        close_connection(connection);
        return false;
    }
    if (rest != connection->wants_writing) watch(connection, EPOLL_CTL_MOD, rest);
    return true;
}

static void serve(struct connection *connection, uint32_t events) {
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
        if (!buffer_read(&connection->in, connection->fd)) {
            close_connection(connection);
            return;
        }
        while (take_request(connection)) continue;
    }
    flush(connection);
}

static void accept_connections(int listener) {
    int fd;
    while ((fd = accept(listener, NULL, NULL)) >= 0) {
        struct connection *connection = calloc(1, sizeof *connection);
        if (connection == NULL) die("memory");
        prepare_socket(fd);
        connection->fd = fd;
        connection->place = NOT_WAITING;
        watch(connection, EPOLL_CTL_ADD, false);
    }
}

static void send_what_is_due(void) {
    double moment = now();
    while (heap_count > 0 && heap[0]->now.due <= moment) {
        struct connection *connection = heap[0];
        advance(connection, moment);
        if (flush(connection))
            while (take_request(connection))
                if (!flush(connection)) break;
    }
}

static int listen_on(int port) {
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in address = loopback(port);
    socklen_t size = sizeof address;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, size) < 0 || listen(listener, 8192) < 0) die("listen");
    getsockname(listener, (struct sockaddr *)&address, &size);
    prepare_socket(listener);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

int main(int count, char **words) {
    settings.tokens = (long)number_option(count, words, "--tokens", 16);
    settings.rate = number_option(count, words, "--rate", 0);
    settings.wait = number_option(count, words, "--wait-ms", 0) / 1000;
    settings.context = (long)number_option(count, words, "--context", 1 << 20);
    settings.distinct = number_option(count, words, "--distinct", 0) > 0;
    if (number_option(count, words, "--die-with-parent", 0) > 0) prctl(PR_SET_PDEATHSIG, SIGTERM);
    raise_file_limit();
    poller = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_on((int)number_option(count, words, "--port", 0));
    struct epoll_event events[256], listening = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, listener, &listening) < 0) die("epoll_ctl");
    for (;;) {
        int wait = -1;
        if (heap_count > 0) {
            double left = heap[0]->now.due - now();
            wait = left <= 0 ? 0 : (int)(left * 1000) + 1;
        }
        int ready = epoll_wait(poller, events, 256, wait);
        if (ready < 0 && errno != EINTR) die("epoll_wait");
        for (int index = 0; index < ready; index++) {
            if (events[index].data.ptr == NULL) accept_connections(listener);
            else serve(events[index].data.ptr, events[index].events);
        }
        send_what_is_due();
    }
}
