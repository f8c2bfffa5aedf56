/* A websocket load client: many connections on one thread, frames sent as they come out of a file, every answer compared.

   wsload echo PORT CONNECTIONS PIPELINE SECONDS OPCODE DEFLATE FILE     messages per second, each answered before the next
   wsload hold PORT CONNECTIONS DEFLATED FILE                            opens connections and keeps them, until stdin ends
   wsload spread PORT CONNECTIONS STALLED ROUNDS SIZE                    has a message sent to all connections, ROUNDS times

   FILE holds the messages that are sent in turn: length of the frame and of its payload (u32, native), frame, payload. The
   frame is ready to be sent (masked, compressed or not); the payload is what has to come back. OPCODE is 1 or 2, DEFLATE 0 or
   1. Results are lines of JSON. Exit codes: 0, 1 wrong answer or lost connection, 2 bad call. Knows RFC 6455 and 7692 as far as a client of an honest server must; Linux, zlib. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

enum { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };
enum {
    MAX_PIPELINE = 64,
    EVENTS = 256,
    ROOM = 64 * 1024,       /* bytes asked of one recv */
    SOURCES = 8,            /* loopback addresses: one alone has some 28,000 ports, less those in TIME_WAIT */
    STALLED_BUFFER = 4096,  /* bytes of receive buffer of a client that does not read */
    TIMEOUT = 60,           /* seconds without any event: the server hangs */
    CHUNK = 64 * 1024,      /* bytes inflated at once */
    BUCKETS = 100 * 1000,   /* of 10 microseconds: a second */
};

typedef struct {
    const uint8_t *frame, *payload; /* in the file's memory */
    uint32_t frame_size, payload_size;
} Message;

typedef struct {
    int fd;
    bool deflate;            /* negotiated */
    bool stalled;
    bool waits_for_room;     /* EPOLLOUT is asked for */

    uint8_t *buffer;         /* received and not parsed yet, begin..end */
    size_t begin, end, capacity;

    uint32_t next_sent;      /* message whose frame is (or will be) on its way */
    uint32_t next_answered;  /* message whose answer is due */
    size_t sent;             /* bytes of the current frame that the kernel has */
    int to_send;             /* frames, the current one included */
    int64_t begun[MAX_PIPELINE]; /* nanoseconds, by message modulo */

    bool in_message, compressed;
    size_t matched;          /* bytes of the answer so far */
    z_stream *inflater;
} Connection;

static Message *messages;
static uint32_t message_count;
static int opcode_expected;
static int poller;
static uint64_t answered, answered_compressed, wire_bytes;
static uint32_t latencies[BUCKETS + 1];
static bool over;
static uint8_t chunk[CHUNK];

/* spread: what one message is, how many connections have it whole */
static uint8_t *spread_payload;
static size_t spread_size;
static bool spreading;

static void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

static void fail(const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (char *at = text; *at; at++)
        if (*at == '"' || *at == '\\' || (unsigned char)*at < ' ') *at = '\'';
    printf("{\"error\": \"%s\"}\n", text);
    fflush(stdout);
    exit(1);
}

static int64_t now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * INT64_C(1000000000) + at.tv_nsec;
}

static void *allocate(size_t size)
{
    void *memory = calloc(1, size);
    if (memory == NULL) fail("no memory for %zu bytes", size);
    return memory;
}

static void load_messages(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) fail("%s: %s", path, strerror(errno));
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    uint8_t *data = allocate((size_t)size);
    if (fread(data, 1, (size_t)size, file) != (size_t)size) fail("%s cannot be read", path);
    fclose(file);
    messages = allocate(sizeof(Message) * 1024);
    for (long at = 0; at + 8 <= size && message_count < 1024;) {
        Message *message = &messages[message_count++];
        memcpy(&message->frame_size, data + at, 4);
        memcpy(&message->payload_size, data + at + 4, 4);
        message->frame = data + at + 8;
        message->payload = message->frame + message->frame_size;
        at += 8 + (long)message->frame_size + (long)message->payload_size;
    }
    if (message_count == 0) fail("%s holds no message", path);
}

/* Handshake: blocking, one after the other. */

static void open_connection(Connection *connection, int port, const char *path, bool deflate, int number, int receive_buffer)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in source = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(number % SOURCES));
    int on = 1;
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->fd < 0) fail("socket: %s", strerror(errno));
    setsockopt(connection->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (receive_buffer) setsockopt(connection->fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    if (bind(connection->fd, (struct sockaddr *)&source, sizeof source) < 0) fail("bind: %s", strerror(errno));
    if (connect(connection->fd, (struct sockaddr *)&address, sizeof address) < 0) fail("connect: %s", strerror(errno));

    char request[512];
    int size = snprintf(request, sizeof request,
        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n",
        path, port, deflate ? "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" : "");
    if (send(connection->fd, request, (size_t)size, MSG_NOSIGNAL) != size) fail("the handshake could not be sent");

    char head[4096];
    size_t end = 0;
    struct pollfd waiting = {.fd = connection->fd, .events = POLLIN};
    while (end < 4 || memcmp(head + end - 4, "\r\n\r\n", 4) != 0) {
        if (end == sizeof head - 1) fail("the answer to the handshake does not end");
        if (poll(&waiting, 1, TIMEOUT * 1000) <= 0) fail("no answer to the handshake of connection %d", number);
        ssize_t count = recv(connection->fd, head + end, 1, 0); /* to the byte: what follows is frames */
        if (count <= 0) fail("connection %d ended in the handshake", number);
        end += (size_t)count;
    }
    head[end] = '\0';
    if (strncmp(head, "HTTP/1.1 101", 12) != 0) fail("handshake answered %.60s", head);
    if (strstr(head, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") == NULL) fail("wrong Sec-WebSocket-Accept");
    const char *extension = strcasestr(head, "permessage-deflate");
    if (deflate && extension == NULL) fail("permessage-deflate was not negotiated");
    if (!deflate && strcasestr(head, "sec-websocket-extensions")) fail("an extension that was not offered");
    if (extension) {
        const char *bits = strcasestr(extension, "client_max_window_bits=");
        if (bits && atoi(bits + 23) < 12) fail("client_max_window_bits below the 12 that the frames are made with");
        connection->inflater = allocate(sizeof(z_stream));
        if (inflateInit2(connection->inflater, -15) != Z_OK) fail("inflateInit2");
    }
    connection->deflate = deflate;
    fcntl(connection->fd, F_SETFL, O_NONBLOCK);
}

static void watch(Connection *connection, bool for_room, int how)
{
    struct epoll_event event = {.events = EPOLLIN | (for_room ? EPOLLOUT : 0), .data.ptr = connection};
    if (epoll_ctl(poller, how, connection->fd, &event) < 0) fail("epoll_ctl: %s", strerror(errno));
    connection->waits_for_room = for_room;
}

/* Sending */

static void flush(Connection *connection)
{
    while (connection->to_send) {
        struct iovec pieces[MAX_PIPELINE];
        size_t total = 0;
        for (int i = 0; i < connection->to_send; i++) {
            Message *message = &messages[(connection->next_sent + (uint32_t)i) % message_count];
            size_t skip = i == 0 ? connection->sent : 0;
            pieces[i] = (struct iovec){(void *)(message->frame + skip), message->frame_size - skip};
            total += pieces[i].iov_len;
        }
        ssize_t count = writev(connection->fd, pieces, connection->to_send);
        if (count < 0) {
            if (errno != EAGAIN) fail("send: %s", strerror(errno));
            count = 0;
        }
        size_t left = (size_t)count;
        while (left && left >= messages[connection->next_sent % message_count].frame_size - connection->sent) {
            left -= messages[connection->next_sent % message_count].frame_size - connection->sent;
            connection->sent = 0;
            connection->next_sent++;
            connection->to_send--;
        }
        connection->sent += left;
        if ((size_t)count < total) {
            if (!connection->waits_for_room) watch(connection, true, EPOLL_CTL_MOD);
            return;
        }
    }
    if (connection->waits_for_room) watch(connection, false, EPOLL_CTL_MOD);
}

static void queue_message(Connection *connection)
{
    connection->begun[(connection->next_sent + (uint32_t)connection->to_send) % MAX_PIPELINE] = now();
    connection->to_send++;
}

static void send_pong(Connection *connection, const uint8_t *payload, size_t size)
{
    uint8_t frame[6 + 125] = {0x80 | PONG, (uint8_t)(0x80 | size)};
    memcpy(frame + 6, payload, size); /* with the mask 0 */
    if (connection->sent == 0) (void)!send(connection->fd, frame, 6 + size, MSG_NOSIGNAL);
}

/* Answers */

static void compare(Connection *connection, const uint8_t *data, size_t size)
{
    const uint8_t *payload = spread_payload;
    size_t expected = spread_size;
    if (!spreading) {
        Message *message = &messages[connection->next_answered % message_count];
        payload = message->payload;
        expected = message->payload_size;
    }
    if (size > expected - connection->matched || memcmp(payload + connection->matched, data, size) != 0)
        fail("an answer differs from what was sent, after %zu of %zu bytes", connection->matched, expected);
    connection->matched += size;
}

static void inflate_into_comparison(Connection *connection, const uint8_t *data, size_t size)
{
    z_stream *inflater = connection->inflater;
    inflater->next_in = (uint8_t *)data;
    inflater->avail_in = (uInt)size;
    do {
        inflater->next_out = chunk;
        inflater->avail_out = CHUNK;
        int result = inflate(inflater, Z_SYNC_FLUSH);
        if (result != Z_OK && result != Z_BUF_ERROR) fail("inflate: %d %s", result, inflater->msg ? inflater->msg : "");
        compare(connection, chunk, CHUNK - inflater->avail_out);
    } while (inflater->avail_out == 0 || inflater->avail_in);
}

static void end_message(Connection *connection)
{
    size_t expected = spreading ? spread_size : messages[connection->next_answered % message_count].payload_size;
    if (connection->compressed) {
        inflate_into_comparison(connection, (const uint8_t *)"\0\0\xff\xff", 4);
        answered_compressed++;
    }
    if (connection->matched != expected) fail("an answer has %zu bytes of %zu", connection->matched, expected);
    connection->matched = 0;
    connection->in_message = false;
    answered++;
    if (!spreading) {
        int64_t took = (now() - connection->begun[connection->next_answered % MAX_PIPELINE]) / 10000;
        latencies[took < BUCKETS ? took : BUCKETS]++;
    }
    connection->next_answered++;
    if (!over) queue_message(connection);
}

static void take_frame(Connection *connection, const uint8_t *head, const uint8_t *payload, size_t size)
{
    int opcode = head[0] & 0x0f;
    bool final = head[0] & 0x80, compressed = head[0] & 0x40;
    if (head[0] & 0x30) fail("reserved bits in a frame");
    if (opcode == PING) {
        send_pong(connection, payload, size);
        return;
    }
    if (opcode == PONG) return;
    if (opcode == CLOSE) fail("the server closes with %d", size >= 2 ? payload[0] << 8 | payload[1] : 1005);
    if ((opcode == 0) != connection->in_message) fail("a frame of opcode %d at the wrong place", opcode);
    if (opcode) {
        if (opcode != opcode_expected) fail("an answer of opcode %d", opcode);
        if (compressed && !connection->deflate) fail("a compressed answer, not negotiated");
        connection->compressed = compressed;
        connection->in_message = true;
    }
    if (connection->compressed)
        inflate_into_comparison(connection, payload, size);
    else
        compare(connection, payload, size);
    if (final) end_message(connection);
}

static void parse(Connection *connection)
{
    for (;;) {
        const uint8_t *at = connection->buffer + connection->begin;
        size_t have = connection->end - connection->begin, head = 2;
        if (have < head) return;
        if (at[1] & 0x80) fail("a masked frame from the server");
        size_t size = at[1] & 0x7f;
        if (size == 126) {
            head = 4;
            if (have < head) return;
            size = (size_t)at[2] << 8 | at[3];
        } else if (size == 127) {
            head = 10;
            if (have < head) return;
            size = 0;
            for (int i = 2; i < 10; i++) size = size << 8 | at[i];
        }
        if (have < head + size) return;
        connection->begin += head + size;
        take_frame(connection, at, at + head, size);
    }
}

/* Reads until the socket is empty; false when it is the server's end. */
static bool receive(Connection *connection)
{
    for (;;) {
        if (connection->begin == connection->end) connection->begin = connection->end = 0;
        if (connection->capacity - connection->end < ROOM) {
            memmove(connection->buffer, connection->buffer + connection->begin, connection->end - connection->begin);
            connection->end -= connection->begin;
            connection->begin = 0;
            if (connection->capacity - connection->end < ROOM) {
                connection->capacity = connection->capacity * 2 + ROOM;
                connection->buffer = realloc(connection->buffer, connection->capacity);
                if (connection->buffer == NULL) fail("no memory");
            }
        }
        ssize_t count = recv(connection->fd, connection->buffer + connection->end, connection->capacity - connection->end, 0);
        if (count < 0 && errno == EAGAIN) break;
        if (count <= 0) return false;
        wire_bytes += (uint64_t)count;
        connection->end += (size_t)count;
        parse(connection);
        if (connection->end < connection->capacity) break; /* nothing more is there */
    }
    if (connection->begin == connection->end) {
        /* Ten thousand idle connections must not hold ten thousand buffers here. */
        free(connection->buffer);
        connection->buffer = NULL;
        connection->begin = connection->end = connection->capacity = 0;
    }
    return true;
}

static void serve_events(int timeout)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(poller, events, EVENTS, timeout);
    if (count < 0 && errno != EINTR) fail("epoll_wait: %s", strerror(errno));
    if (count == 0 && timeout >= TIMEOUT * 1000) fail("nothing has happened for %d s", TIMEOUT);
    for (int i = 0; i < count; i++) {
        Connection *connection = events[i].data.ptr;
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR) && !receive(connection)) fail("the server has closed a connection");
        flush(connection);
    }
}

static double percentile(double share)
{
    uint64_t total = 0, seen = 0;
    for (int i = 0; i <= BUCKETS; i++) total += latencies[i];
    for (int i = 0; i <= BUCKETS; i++)
        if ((seen += latencies[i]) > (uint64_t)((double)total * share)) return i * 10.0;
    return BUCKETS * 10.0;
}

static Connection *open_all(int port, const char *path, int count, int deflated)
{
    Connection *connections = allocate(sizeof(Connection) * (size_t)count);
    for (int i = 0; i < count; i++) {
        open_connection(&connections[i], port, path, i < deflated, i, 0);
        watch(&connections[i], false, EPOLL_CTL_ADD);
    }
    return connections;
}

static bool idle(const Connection *connection)
{
    return connection->next_answered == connection->next_sent && connection->to_send == 0;
}

static int echo(char **words)
{
    int port = atoi(words[0]), count = atoi(words[1]), pipeline = atoi(words[2]);
    double seconds = atof(words[3]);
    opcode_expected = atoi(words[4]);
    int deflate = atoi(words[5]);
    load_messages(words[6]);
    if (count < 1 || pipeline < 1 || pipeline > MAX_PIPELINE) return 2;
    Connection *connections = open_all(port, "/echo", count, deflate ? count : 0);
    int64_t begun = now(), until = begun + (int64_t)(seconds * 1e9);
    for (int i = 0; i < count; i++) {
        for (int j = 0; j < pipeline; j++) queue_message(&connections[i]);
        flush(&connections[i]);
    }
    while (now() < until) serve_events(TIMEOUT * 1000);
    over = true;
    for (int i = 0; i < count; i++)
        while (!idle(&connections[i])) serve_events(TIMEOUT * 1000);
    double took = (double)(now() - begun) / 1e9;
    printf("{\"messages\": %llu, \"compressed\": %llu, \"seconds\": %.6f, \"bytes\": %llu, \"p50_us\": %.0f, \"p99_us\": %.0f}\n",
        (unsigned long long)answered, (unsigned long long)answered_compressed, took, (unsigned long long)wire_bytes,
        percentile(0.50), percentile(0.99));
    return 0;
}

/* Reads a line of stdin while it answers pings; false at the end. */
static bool wait_for_word(void)
{
    struct pollfd waiting[2] = {{.fd = 0, .events = POLLIN}, {.fd = poller, .events = POLLIN}};
    for (;;) {
        if (poll(waiting, 2, -1) < 0) fail("poll: %s", strerror(errno));
        if (waiting[1].revents) serve_events(0);
        if (waiting[0].revents) {
            char byte;
            while (read(0, &byte, 1) == 1)
                if (byte == '\n') return true;
            return false;
        }
    }
}

/* After the handshakes a line; after each line of stdin every connection sends a message, then a line. Ends with stdin. */
static int hold(char **words)
{
    int port = atoi(words[0]), count = atoi(words[1]), deflated = atoi(words[2]);
    opcode_expected = TEXT;
    over = true;
    load_messages(words[3]); /* the first is uncompressed, the second compressed */
    if (message_count != 2) return 2;
    Message plain = messages[0], compressed = messages[1];
    Connection *connections = open_all(port, "/echo", count, deflated);
    printf("{\"opened\": %d}\n", count);
    fflush(stdout);
    while (wait_for_word()) {
        message_count = 1;
        for (int i = 0; i < count; i++) {
            messages[0] = connections[i].deflate ? compressed : plain;
            queue_message(&connections[i]);
            flush(&connections[i]);
            while (!idle(&connections[i])) serve_events(TIMEOUT * 1000);
        }
        printf("{\"answered\": %llu, \"compressed\": %llu}\n", (unsigned long long)answered, (unsigned long long)answered_compressed);
        fflush(stdout);
    }
    return 0;
}

/* Each round: the control connection asks for a message to all; the time until every connection that reads has it. */
static int spread(char **words)
{
    int port = atoi(words[0]), count = atoi(words[1]), stalled = atoi(words[2]), rounds = atoi(words[3]);
    spread_size = (size_t)atol(words[4]);
    spread_payload = allocate(spread_size);
    memset(spread_payload, 'x', spread_size);
    opcode_expected = BINARY;
    spreading = over = true;
    Connection *connections = allocate(sizeof(Connection) * (size_t)count);
    for (int i = 0; i < count; i++) {
        /* Spread evenly, so that readers come after stalled ones in any order the app may have. */
        connections[i].stalled = stalled && i % (count / stalled) == 0;
        open_connection(&connections[i], port, "/subscribe", false, i, connections[i].stalled ? STALLED_BUFFER : 0);
        if (!connections[i].stalled) watch(&connections[i], false, EPOLL_CTL_ADD);
    }
    Connection control = {0};
    open_connection(&control, port, "/control", false, 0, 0);
    char text[32];
    int size = snprintf(text, sizeof text, "%zu", spread_size);
    uint8_t order[64] = {0x80 | TEXT, (uint8_t)(0x80 | size)};
    memcpy(order + 6, text, (size_t)size);
    uint64_t due = 0;
    printf("{\"opened\": %d}\n", count);
    fflush(stdout);
    for (int round = 0; round < rounds; round++) {
        if (round % 10 == 0 && !wait_for_word()) return 1;
        due += (uint64_t)(count - stalled);
        int64_t begun = now();
        if (send(control.fd, order, 6 + (size_t)size, MSG_NOSIGNAL) < 0) fail("control: %s", strerror(errno));
        while (answered < due) serve_events(TIMEOUT * 1000);
        printf("{\"round\": %d, \"ms\": %.3f}\n", round, (double)(now() - begun) / 1e6);
        fflush(stdout);
    }
    wait_for_word();
    return 0;
}

int main(int count, char **words)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (count == 9 && strcmp(words[1], "echo") == 0) return echo(words + 2);
    if (count == 6 && strcmp(words[1], "hold") == 0) return hold(words + 2);
    if (count == 7 && strcmp(words[1], "spread") == 0) return spread(words + 2);
    fprintf(stderr, "see the first lines of wsload.c\n");
    return 2;
}
