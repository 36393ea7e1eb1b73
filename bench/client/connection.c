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

enum { COMMAND_SIZE = 60000, ITEM_SIZE = 128 /* at most, separator and suffix included */ };
enum { CATCH_UP_BUFFER = 1 << 20, PER_ADDRESS = 20000 /* source ports */ };

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
    close(connection->fd);
    free(connection->leftover);
    connection->leftover = NULL;
    connection->leftover_length = 0;
}

static void drop(struct connection *connection)
{
    if (connection->state == READY) {
        client.ready--;
        *(connection->stalled ? &client.stalled_closed : &client.closed) += 1;
        client.closes[connection->code ? connection->code : 1006]++;
    } else {
        client.in_flight--;
        client.failed++;
        if (connection->state != SUBSCRIBING)
            client.refused[connection->code]++;
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
    return send(connection->fd, data, length, MSG_NOSIGNAL) == (ssize_t)length;
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

static bool upgrade(struct connection *connection)
{
    char request[512];
    int length = snprintf(request, sizeof request,
                          "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
                          options.path, options.port, options.deflate ? OFFER : "");
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
    if (connection->stalled && !client.quiet)
        watch(connection, 0, EPOLL_CTL_DEL);
}

static bool subscribe(struct connection *connection)
{
    char command[COMMAND_SIZE], *at = stpcpy(command, options.prefix);
    for (uint32_t i = 0; i < options.subscribed; i++) {
        struct subscription *subscription = &connection->subscriptions[i];
        *subscription = (struct subscription){.channel = subscription->channel};
        if (command + sizeof command - at < ITEM_SIZE) {
            fputs("client: the subscribe command is too long\n", stderr);
            exit(2);
        }
        at = stpcpy(at, i ? options.separator : "");
        at += sprintf(at, options.item, subscription->channel);
    }
    strcpy(at, options.suffix);
    connection->state = SUBSCRIBING;
    if (!send_text(connection, options.hello) || !send_text(connection, command))
        return false;
    if (!*options.ack)
        become_ready(connection);
    return true;
}

/* Returns the bytes of the response head, 0 when it is not whole yet, -1 when it is not 101, or agrees to less than we
   insist on. */
static ssize_t response(struct connection *connection, const uint8_t *data, size_t length)
{
    static const char agreed[] = "server_no_context_takeover";
    const uint8_t *end = memmem(data, length, "\r\n\r\n", 4);
    if (!end)
        return 0;
    int status = length > 12 ? atoi((const char *)data + 9) : 0;
    size_t head = (size_t)(end - data);
    if (status == 101 && (!options.deflate || memmem(data, head, agreed, sizeof agreed - 1)))
        return (ssize_t)head + 4;
    connection->code = (uint16_t)(status > 0 && status < HTTP_STATUSES ? status : 0);
    return -1;
}

static bool begins(const struct frame *frame, const char *text)
{
    size_t length = strlen(text);
    return length && frame->length >= length && !memcmp(frame->payload, text, length);
}

/* A frame without a message: an acknowledgement, a gap, a ping in text. */
static bool handle_control(struct connection *connection, const struct frame *frame)
{
    if (begins(frame, "{\"type\":\"gap\"")) {
        client.gap_notices++;
        if (options.numbered)
            judge_gap(connection, frame);
    }
    if (connection->state == SUBSCRIBING && memmem(frame->payload, frame->length, options.ack, strlen(options.ack)))
        become_ready(connection);
    if (!begins(frame, options.ask))
        return true;
    client.window.pings++;
    return send_text(connection, options.reply);
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
        if (!subscribe(connection))
            return -1;
        at = (size_t)head;
    }
    for (; (used = frame_read(buffer + at, length - at, &frame)) > 0; at += (size_t)used)
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
    ssize_t got = recv(connection->fd, buffer + have, READ_BUFFER - have, 0);
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

void connection_event(struct connection *connection)
{
    if (connection->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error || !upgrade(connection))
            drop(connection);
    } else {
        receive(connection);
    }
}

void connection_leave(struct connection *connection)
{
    static const uint8_t code[2] = {1000 >> 8, 1000 & 0xff};
    send_frame(connection, OP_CLOSE, code, sizeof code);
    client.ready--;
    release(connection);
    connection->state = IDLE;
    connection->returned = true;
}

void connection_resume(struct connection *connection)
{
    int size = CATCH_UP_BUFFER; /* a window of a few kilobytes would take its time */
    setsockopt(connection->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    watch(connection, EPOLLIN, EPOLL_CTL_ADD);
}
