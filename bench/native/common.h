/* What the fake engine and the load generator share: clocks, growing buffers, sockets of loopback, the command line. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Seconds of the monotonic clock. */
static inline double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

_Noreturn static inline void die(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(2);
}

/* Bytes from `start` to `end`; those before `start` have been used. */
struct buffer {
    char *bytes;
    size_t start, end, size;
};

static inline size_t buffer_length(const struct buffer *buffer) { return buffer->end - buffer->start; }

static inline char *buffer_head(const struct buffer *buffer) { return buffer->bytes + buffer->start; }

/* Make room for so many more bytes. */
static inline void buffer_reserve(struct buffer *buffer, size_t more) {
    if (buffer->start == buffer->end) buffer->start = buffer->end = 0;
    if (buffer->end + more <= buffer->size) return;
    if (buffer->start > 0) {
        memmove(buffer->bytes, buffer_head(buffer), buffer_length(buffer));
        buffer->end -= buffer->start;
        buffer->start = 0;
    }
    if (buffer->end + more <= buffer->size) return;
    buffer->size = (buffer->end + more) * 2;
    buffer->bytes = realloc(buffer->bytes, buffer->size);
    if (buffer->bytes == NULL) die("memory");
}

static inline void buffer_add(struct buffer *buffer, const char *bytes, size_t length) {
    buffer_reserve(buffer, length);
    memcpy(buffer->bytes + buffer->end, bytes, length);
    buffer->end += length;
}

static inline void buffer_format(struct buffer *buffer, const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    buffer_reserve(buffer, 512);
    size_t room = buffer->size - buffer->end;
    int length = vsnprintf(buffer->bytes + buffer->end, room, format, arguments);
    if ((size_t)length >= room) {
        buffer_reserve(buffer, (size_t)length + 1);
        vsnprintf(buffer->bytes + buffer->end, (size_t)length + 1, format, again);
    }
    buffer->end += (size_t)length;
    va_end(arguments);
    va_end(again);
}

static inline void buffer_free(struct buffer *buffer) {
    free(buffer->bytes);
    memset(buffer, 0, sizeof *buffer);
}

/* Read what has arrived. Returns false at the end of the connection. */
static inline bool buffer_read(struct buffer *buffer, int fd) {
    for (;;) {
        buffer_reserve(buffer, 16384);
        size_t room = buffer->size - buffer->end;
        ssize_t got = read(fd, buffer->bytes + buffer->end, room);
        if (got > 0) {
            buffer->end += (size_t)got;
            if ((size_t)got < room) return true;
        } else if (got < 0 && errno == EINTR) {
            continue;
        } else {
            return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
        }
    }
}

/* Write as much as the socket takes. Returns false where the connection is broken. */
static inline bool buffer_write(struct buffer *buffer, int fd) {
    while (buffer_length(buffer) > 0) {
        ssize_t sent = send(fd, buffer_head(buffer), buffer_length(buffer), MSG_NOSIGNAL);
        if (sent > 0) buffer->start += (size_t)sent;
        else if (errno == EINTR) continue;
        else return errno == EAGAIN || errno == EWOULDBLOCK;
    }
    return true;
}

static inline void prepare_socket(int fd) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static inline struct sockaddr_in loopback(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

/* Allow as many open files as this user may have. */
static inline void raise_file_limit(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* The value of `--name VALUE`, or a default. */
static inline const char *option(int count, char **words, const char *name, const char *otherwise) {
    for (int index = 1; index + 1 < count; index++)
        if (strcmp(words[index], name) == 0) return words[index + 1];
    return otherwise;
}

static inline double number_option(int count, char **words, const char *name, double otherwise) {
    const char *text = option(count, words, name, NULL);
    return text == NULL ? otherwise : atof(text);
}

/* Find a header of an HTTP head that ends at `end`, whatever its case; its value, or NULL. */
static inline const char *find_header(const char *head, const char *end, const char *name) {
    size_t length = strlen(name);
    for (const char *line = memchr(head, '\n', (size_t)(end - head)); line != NULL && line + length + 2 < end;
         line = memchr(line, '\n', (size_t)(end - line))) {
        line++;
        if (strncasecmp(line, name, length) == 0 && line[length] == ':') {
            line += length + 1;
            while (line < end && *line == ' ') line++;
            return line;
        }
    }
    return NULL;
}

#endif
