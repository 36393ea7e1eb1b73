#define _GNU_SOURCE
#include "client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ITEM_SIZE = 128 /* at most, separator and suffix included */ };
enum { CATCH_UP_BUFFER = 1 << 20, PER_ADDRESS = 20000 /* source ports */ };

static const char UPGRADE[] = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                              "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
static const char OFFER[] = "Sec-WebSocket-Extensions: permessage-deflate; "
                            "client_no_context_takeover; server_no_context_takeover\r\n";
static uint8_t buffer[READ_BUFFER];

static void watch(struct connection *connection, uint32_t events, int operation)
{
    struct epoll_event event = {.events = events, .data.u32 = connection->id - options.first_id};
    if (epoll_ctl(client.epoll, operation, connection->fd, &event))
        perror("client: epoll_ctl");
}

static void release(struct connection *connection)
{
    tls_end(connection);
    close(connection->fd);
    free(connection->leftover);
    connection->leftover = NULL;
    connection->leftover_length = 0;
}

void connection_wait(struct connection *connection)
{
    connection->waits = true;
    client.waiting++;
}

static void drop(struct connection *connection)
{
    if (connection->state == READY) {
        client.ready--;
        *(connection->stalled ? &client.stalled_closed : &client.closed) += 1;
        client.closes[connection->code ? connection->code : 1006]++;
    } else {
        client.in_flight--;
        if (connection->state < GREETING)
            client.refused[connection->code]++;
        /* Over TLS a refusal before the handshake can't be told from an end. */
        if (connection->code == 503 || (options.tls && connection->state < UPGRADING) ||
            (connection->vanishes && client.return_ns))
            connection_wait(connection);
        else
            client.failed++;
    }
    release(connection);
    connection->state = connection->state == READY ? CLOSED : IDLE;
}

void connection_begin(struct connection *connection)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1, small = 4096;
    /* The port is chosen at connect(), so that it need only be free towards this one server. */
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connection->stalled)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    struct sockaddr_in source = {.sin_family = AF_INET};
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + connection->id / PER_ADDRESS);
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connection->begun_ns = now_ns();
    client.waiting -= connection->waits;
    connection->waits = false;
    connection->fd = fd;
    connection->state = CONNECTING;
    connection->code = 0;
    client.in_flight++;
    if (bind(fd, (struct sockaddr *)&source, sizeof source) ||
        (connect(fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS))
        drop(connection);
    else
        watch(connection, EPOLLOUT, EPOLL_CTL_ADD);
}

static bool send_all(struct connection *connection, const void *data, size_t length)
{
    /* A new socket takes some tens of kilobytes at once; less would mean that the server does not read. */
    ssize_t sent = connection->tls ? tls_send(connection, data, length) : send(connection->fd, data, length, MSG_NOSIGNAL);
    return sent == (ssize_t)length;
}

static bool send_frame(struct connection *connection, unsigned opcode, const void *payload, size_t length)
{
    uint8_t frame[COMMAND_SIZE + 8];
    return send_all(connection, frame, frame_write(frame, opcode, payload, length));
}

static bool send_text(struct connection *connection, const char *text)
{
    return !*text || send_frame(connection, options.binary ? OP_BINARY : OP_TEXT, text, strlen(text));
}

/* What subscribes, as text: in a command, or in the path. */
static void write_items(char *at, const struct connection *connection)
{
    const char *end = at + COMMAND_SIZE;
    bool resumes = connection->vanishes && client.return_ns && *options.since;
    at = stpcpy(at, options.prefix);
    for (uint32_t i = 0; i < (resumes ? 2 : 1) * options.subscribed; i++) {
        const struct subscription *subscription = &connection->subscriptions[i % options.subscribed];
        bool first = i % options.subscribed == 0;
        unsigned long long seq = subscription->last;
        if (seq)
            seq = (seq - 1) * options.channels + subscription->channel + 1;
        if (end - at < ITEM_SIZE) {
            fputs("client: the subscribe command is too long\n", stderr);
            exit(2);
        }
        at = stpcpy(at, !first ? options.separator : i ? options.since : "");
        at += sprintf(at, i < options.subscribed ? options.item : options.since_item, subscription->channel, seq);
    }
    strcpy(at, resumes ? options.since_suffix : options.suffix);
}

static bool upgrade(struct connection *connection)
{
    char request[COMMAND_SIZE + 512], items[COMMAND_SIZE] = "";
    if (options.in_path)
        write_items(items, connection);
    int length = snprintf(request, sizeof request,
                          "GET %s%s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n%s%s%s\r\n", options.path, items, options.port,
                          options.sse ? "" : UPGRADE, options.headers, options.deflate ? OFFER : "");
    connection->state = UPGRADING;
    watch(connection, EPOLLIN, EPOLL_CTL_MOD);
    return send_all(connection, request, (size_t)length);
}

static void become_ready(struct connection *connection)
{
    uint64_t now = now_ns();
    connection->state = READY;
    client.in_flight--;
    client.ready++;
    histogram_add(&client.window.subscribe, now - connection->begun_ns);
    if (connection->id - options.first_id >= options.connections) {
        client.joined++;
        client.joined_ns = now;
    }
    if (connection->vanishes && client.return_ns) {
        client.returned++;
        client.returned_ns = now;
        connection->behind = true;
    }
    if (connection->stalled && !client.quiet)
        watch(connection, 0, EPOLL_CTL_DEL);
}

static bool centrifugo_begin(struct connection *connection)
{
    static uint8_t commands[COMMAND_SIZE];
    size_t size = centrifugo_subscribe(commands, sizeof commands, connection);
    return size && send_frame(connection, OP_BINARY, commands, size);
}

static bool mqtt_begin(struct connection *connection)
{
    static uint8_t packet[COMMAND_SIZE];
    if (!send_frame(connection, OP_BINARY, packet, mqtt_connect(packet, connection->id)))
        return false;
    size_t size = mqtt_subscribe(packet, sizeof packet, connection);
    return size && send_frame(connection, OP_BINARY, packet, size);
}

static bool subscribe(struct connection *connection)
{
    char command[COMMAND_SIZE] = "";
    if (!options.in_path && !options.mqtt && !options.protobuf)
        write_items(command, connection);
    bool resumes = connection->vanishes && client.return_ns && *options.since;
    for (uint32_t i = 0; i < options.subscribed && !resumes; i++) {
        struct subscription *subscription = &connection->subscriptions[i];
        *subscription = (struct subscription){.channel = subscription->channel};
    }
    connection->state = SUBSCRIBING;
    if (!(options.mqtt       ? mqtt_begin(connection)
          : options.protobuf ? centrifugo_begin(connection)
                             : send_text(connection, command)))
        return false;
    if (!*options.ack)
        become_ready(connection);
    return true;
}

/* After the upgrade. */
static bool greet(struct connection *connection)
{
    uint8_t hello[16];
    if (options.protobuf ? !send_frame(connection, OP_BINARY, hello, centrifugo_connect(hello))
                         : !send_text(connection, options.hello))
        return false;
    connection->state = GREETING;
    return *options.greeting || options.protobuf || subscribe(connection);
}

/* Returns the bytes of the response head, 0 when it is not whole yet, -1 when its status is another, or it agrees to less
   than we insist on. */
static ssize_t response(struct connection *connection, const uint8_t *data, size_t length)
{
    static const char agreed[] = "server_no_context_takeover";
    const uint8_t *end = memmem(data, length, "\r\n\r\n", 4);
    if (!end)
        return 0;
    int status = length > 12 ? atoi((const char *)data + 9) : 0;
    size_t head = (size_t)(end - data);
    if (status == (options.sse ? 200 : 101) && (!options.deflate || memmem(data, head, agreed, sizeof agreed - 1)))
        return (ssize_t)head + 4;
    connection->code = (uint16_t)(status > 0 && status < HTTP_STATUSES ? status : 0);
    return -1;
}

static bool has(const struct frame *frame, const char *text)
{
    return !!memmem(frame->payload, frame->length, text, strlen(text));
}

static bool is_ack(const struct frame *frame)
{
    return options.mqtt ? mqtt_is_ack(frame) : options.protobuf ? centrifugo_is_ack(frame) : has(frame, options.ack);
}

static bool begins(const struct frame *frame, const char *text)
{
    size_t length = strlen(text);
    return length && frame->length >= length && !memcmp(frame->payload, text, length);
}

/* A frame without a message: an acknowledgement, a gap, a ping in text. */
static bool handle_control(struct connection *connection, const struct frame *frame)
{
    if (has(frame, "{\"type\":\"gap\"")) {
        client.gap_notices++;
        if (options.numbered)
            judge_gap(connection, frame);
    }
    if (connection->state == SUBSCRIBING && is_ack(frame))
        become_ready(connection);
    if (connection->state == GREETING && (options.protobuf || begins(frame, options.greeting)))
        return subscribe(connection);
    if (options.protobuf ? !centrifugo_is_ping(frame) : !begins(frame, options.ask))
        return true;
    client.window.pings++;
    return options.protobuf ? send_frame(connection, OP_BINARY, frame->payload, 1) : send_text(connection, options.reply);
}

/* False: drop the connection. */
static bool handle(struct connection *connection, struct frame *frame, uint64_t now, uint32_t *guess)
{
    client.window.frames++;
    if (frame->opcode == OP_PING) {
        client.window.pings++;
        return frame->length <= 125 && send_frame(connection, OP_PONG, frame->payload, frame->length);
    }
    if (frame->opcode == OP_CLOSE) {
        unsigned code = frame->length >= 2 ? (unsigned)(frame->payload[0] << 8 | frame->payload[1]) : 1005;
        connection->code = (uint16_t)(code < CLOSE_CODES ? code : 1002);
        return false;
    }
    if (frame->deflated && !(options.deflate && frame_inflate(frame))) {
        connection->code = 1002;
        return false;
    }
    return judge(connection, frame, now, guess) || handle_control(connection, frame);
}

/* Consume whole frames of the buffer; returns the bytes used, or -1 to drop the connection. */
static ssize_t consume(struct connection *connection, size_t length)
{
    size_t at = 0;
    ssize_t used;
    uint64_t now = now_ns();
    uint32_t guess = 0;
    struct frame frame;
    if (connection->state == UPGRADING) {
        ssize_t head = response(connection, buffer, length);
        if (head <= 0)
            return head;
        if (!greet(connection))
            return -1;
        at = (size_t)head;
    }
    ssize_t (*read)(const uint8_t *, size_t, struct frame *) = options.sse ? event_read : frame_read;
    for (; (used = read(buffer + at, length - at, &frame)) > 0; at += (size_t)used)
        if (!handle(connection, &frame, now, &guess))
            return -1;
    if (!used)
        return (ssize_t)at;
    connection->code = 1002;
    return -1;
}

static void receive(struct connection *connection)
{
    size_t have = connection->leftover_length;
    if (have)
        memcpy(buffer, connection->leftover, have);
    ssize_t got = connection->tls ? tls_receive(connection, buffer + have, READ_BUFFER - have)
                                  : recv(connection->fd, buffer + have, READ_BUFFER - have, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    size_t length = have + (got > 0 ? (size_t)got : 0);
    client.window.bytes += length - have;
    ssize_t used = got > 0 ? consume(connection, length) : -1;
    if (used < 0) {
        drop(connection);
        return;
    }
    size_t rest = length - (size_t)used;
    free(connection->leftover);
    connection->leftover = rest ? memcpy(malloc(rest), buffer + used, rest) : NULL;
    connection->leftover_length = (uint32_t)rest;
}

static void secure(struct connection *connection)
{
    if (connection->state == CONNECTING)
        watch(connection, EPOLLIN, EPOLL_CTL_MOD);
    connection->state = SECURING;
    int done = tls_handshake(connection);
    if (done < 0 || (done && !upgrade(connection)))
        drop(connection);
}

void connection_event(struct connection *connection)
{
    if (connection->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error || (options.tls ? !tls_begin(connection) : !upgrade(connection)))
            drop(connection);
        else if (options.tls)
            secure(connection);
    } else if (connection->state == SECURING) {
        secure(connection);
    } else {
        receive(connection);
    }
}

void connection_leave(struct connection *connection)
{
    static const uint8_t code[2] = {1000 >> 8, 1000 & 0xff};
    if (!options.sse)
        send_frame(connection, OP_CLOSE, code, sizeof code);
    client.ready--;
    release(connection);
    connection->state = IDLE;
    connection->returned = true;
}

void connection_vanish(struct connection *connection)
{
    client.ready--;
    release(connection);
    connection->state = IDLE;
    connection->returned = connection->returned || !*options.since;
    connection->begun_ns = 0;
}

void connection_resume(struct connection *connection)
{
    int size = CATCH_UP_BUFFER; /* a window of a few kilobytes would take its time */
    setsockopt(connection->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    watch(connection, EPOLLIN, EPOLL_CTL_ADD);
}
