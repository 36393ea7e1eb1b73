#define _GNU_SOURCE
#include "connection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "frames.h"
#include "judge.h"
#include "unpack.h"

enum { COMMAND_SIZE = 60000, CATCH_UP_BUFFER = 1 << 20, PER_ADDRESS = 20000 /* source ports */ };

static const char OFFER[] = "Sec-WebSocket-Extensions: permessage-deflate; "
                            "client_no_context_takeover; server_no_context_takeover\r\n";

uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static void watch(struct client *client, struct connection *connection, uint32_t events, int operation)
{
    struct epoll_event event = {.events = events, .data.u32 = connection->id - client->options->first_id};
    if (epoll_ctl(client->epoll, operation, connection->fd, &event))
        perror("client: epoll_ctl");
}

static void drop(struct client *client, struct connection *connection)
{
    switch (connection->state) {
    case CONNECTING:
    case UPGRADING:
    case SUBSCRIBING:
        client->in_flight--;
        client->failed++;
        break;
    case READY:
        client->ready--;
        *(connection->stalled ? &client->stalled_closed : &client->closed) += 1;
        client->closes[connection->close_code ? connection->close_code : 1006]++;
        break;
    default:
        break;
    }
    close(connection->fd);
    free(connection->leftover);
    connection->leftover = NULL;
    connection->leftover_length = 0;
    connection->state = CLOSED;
}

bool connection_begin(struct client *client, struct connection *connection)
{
    const struct options *options = client->options;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    int on = 1;
    /* The port is chosen at connect(), so that it need only be free towards this one server. */
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connection->stalled)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &options->receive_buffer, sizeof options->receive_buffer);
    struct sockaddr_in source = {.sin_family = AF_INET};
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + connection->id / PER_ADDRESS);
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options->port)};
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connection->begun_ns = now_ns();
    if (bind(fd, (struct sockaddr *)&source, sizeof source) ||
        (connect(fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS)) {
        int error = errno;
        close(fd);
        errno = error;
        return false;
    }
    connection->fd = fd;
    connection->state = CONNECTING;
    connection->close_code = 0;
    client->in_flight++;
    watch(client, connection, EPOLLOUT, EPOLL_CTL_ADD);
    return true;
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

static bool send_text(struct client *client, struct connection *connection, const char *text, size_t length)
{
    return send_frame(connection, client->options->binary ? OP_BINARY : OP_TEXT, text, length);
}

static bool upgrade(struct client *client, struct connection *connection)
{
    char request[512];
    int length = snprintf(request, sizeof request,
                          "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
                          client->options->path, client->options->port,
                          client->options->deflate ? OFFER : "");
    connection->state = UPGRADING;
    watch(client, connection, EPOLLIN, EPOLL_CTL_MOD);
    return send_all(connection, request, (size_t)length);
}

static void become_ready(struct client *client, struct connection *connection)
{
    uint64_t now = now_ns();
    connection->state = READY;
    connection->served = true;
    client->in_flight--;
    client->ready++;
    histogram_add(&client->counts.subscribe, now - connection->begun_ns);
    if (connection->id - client->options->first_id >= client->options->connections) {
        client->joined++;
        client->joined_ns = now;
    }
    if (connection->stalled && !client->quiet)
        watch(client, connection, 0, EPOLL_CTL_MOD);
}

static bool subscribe(struct client *client, struct connection *connection)
{
    const struct options *options = client->options;
    track_choose(connection->subscriptions, options->subscribed, options->channels, connection->id, options->seed);
    uint32_t channels[options->subscribed];
    for (uint32_t i = 0; i < options->subscribed; i++)
        channels[i] = connection->subscriptions[i].channel;
    char command[COMMAND_SIZE];
    size_t length = options_command(options, channels, options->subscribed, command, sizeof command);
    connection->state = SUBSCRIBING;
    if (*options->hello && !send_text(client, connection, options->hello, strlen(options->hello)))
        return false;
    if (length && !send_text(client, connection, command, length))
        return false;
    if (!*options->ack)
        become_ready(client, connection);
    return true;
}

/* Returns the bytes of the response head, 0 when it is not whole yet, -1 when it is not 101, or agrees to less than we
   insist on. */
static ssize_t response(struct client *client, const uint8_t *data, size_t length)
{
    const uint8_t *end = memmem(data, length, "\r\n\r\n", 4);
    if (!end)
        return 0;
    int status = length > 12 ? atoi((const char *)data + 9) : 0;
    static const char agreed[] = "server_no_context_takeover";
    size_t head = (size_t)(end - data);
    if (status == 101 && (!client->options->deflate || memmem(data, head, agreed, sizeof agreed - 1)))
        return (ssize_t)head + 4;
    client->refused[status > 0 && status < HTTP_STATUSES ? status : 0]++;
    return -1;
}

static bool begins(const struct frame *frame, const char *text)
{
    size_t length = strlen(text);
    return frame->length >= length && !memcmp(frame->payload, text, length);
}

/* Replace the payload of a compressed frame by what it says. False: it says nothing, or was not agreed on. */
static bool inflated(const struct client *client, struct frame *frame)
{
    if (!frame->deflated)
        return true;
    if (!client->options->deflate)
        return false;
    frame->payload = unpack(frame->payload, frame->length, &frame->length);
    return frame->payload;
}

/* A frame without a message: an acknowledgement, a gap, a ping in text. */
static bool handle_control(struct client *client, struct connection *connection, const struct frame *frame)
{
    const struct options *options = client->options;
    struct gap gap;
    if (begins(frame, "{\"type\":\"gap\"")) {
        client->gap_notices++;
        if (options->numbered && gap_read(frame->payload, frame->length, &gap))
            judge_gap(client, connection, &gap);
    }
    if (connection->state == SUBSCRIBING && *options->ack &&
        memmem(frame->payload, frame->length, options->ack, strlen(options->ack)))
        become_ready(client, connection);
    if (*options->ask && begins(frame, options->ask)) {
        client->counts.pings++;
        return send_text(client, connection, options->reply, strlen(options->reply));
    }
    return true;
}

/* False: drop the connection. */
static bool handle(struct client *client, struct connection *connection, struct frame *frame, uint64_t now,
                   uint32_t *guess)
{
    const struct options *options = client->options;
    client->counts.frames++;
    if (frame->opcode == OP_PING) {
        client->counts.pings++;
        return frame->length <= 125 && send_frame(connection, OP_PONG, frame->payload, frame->length);
    }
    if (frame->opcode == OP_CLOSE) {
        unsigned code = frame->length >= 2 ? (unsigned)(frame->payload[0] << 8 | frame->payload[1]) : 1005;
        connection->close_code = (uint16_t)(code < CLOSE_CODES ? code : 1002);
        return false;
    }
    if (!inflated(client, frame)) {
        connection->close_code = 1002;
        return false;
    }
    struct mark mark;
    size_t at = 0, end;
    while (mark_find(frame->payload + at, frame->length - at, &mark, &end)) {
        if (options->numbered && !numbering_fits(frame->payload + at, end, &mark, options->channels))
            (connection->stalled ? &client->stalled_tally : &client->tally)->misnumbered++;
        judge(client, connection, &mark, now, guess);
        at += end;
    }
    return at || handle_control(client, connection, frame);
}

/* Consume whole frames of the buffer; returns the bytes used, or -1 to drop the connection. */
static ssize_t consume(struct client *client, struct connection *connection, const uint8_t *data, size_t length)
{
    size_t at = 0, used;
    uint64_t now = now_ns();
    uint32_t guess = 0;
    struct frame frame;
    if (connection->state == UPGRADING) {
        ssize_t head = response(client, data, length);
        if (head <= 0)
            return head;
        if (!subscribe(client, connection))
            return -1;
        at = (size_t)head;
    }
    for (;;) {
        switch (frame_read(data + at, length - at, READ_BUFFER / 2, &frame, &used)) {
        case FRAME_WHOLE:
            if (!handle(client, connection, &frame, now, &guess))
                return -1;
            at += used;
            break;
        case FRAME_PARTIAL:
            return (ssize_t)at;
        default:
            connection->close_code = 1002;
            return -1;
        }
    }
}

static void receive(struct client *client, struct connection *connection)
{
    size_t have = connection->leftover_length;
    if (have)
        memcpy(client->buffer, connection->leftover, have);
    ssize_t got = recv(connection->fd, client->buffer + have, READ_BUFFER - have, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        if (connection->state == UPGRADING)
            client->refused[0]++;
        drop(client, connection);
        return;
    }
    client->counts.bytes += (uint64_t)got;
    size_t length = have + (size_t)got;
    ssize_t used = consume(client, connection, client->buffer, length);
    if (used < 0) {
        drop(client, connection);
        return;
    }
    size_t rest = length - (size_t)used;
    if (rest > have) {
        free(connection->leftover);
        connection->leftover = malloc(rest);
    }
    if (rest)
        memcpy(connection->leftover, client->buffer + used, rest);
    connection->leftover_length = (uint32_t)rest;
    if (!rest) {
        free(connection->leftover);
        connection->leftover = NULL;
    }
}

void connection_event(struct client *client, struct connection *connection, uint32_t events)
{
    if (connection->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error || !upgrade(client, connection)) {
            client->refused[0]++;
            drop(client, connection);
        }
        return;
    }
    bool paused = connection->stalled && connection->state == READY && !client->quiet;
    if (!paused) {
        receive(client, connection);
    } else if (events & (EPOLLHUP | EPOLLERR)) {
        /* What came before is still to be read, once it reads again. */
        epoll_ctl(client->epoll, EPOLL_CTL_DEL, connection->fd, NULL);
        connection->ended = true;
    }
}

void connection_leave(struct client *client, struct connection *connection)
{
    static const uint8_t code[2] = {1000 >> 8, 1000 & 0xff};
    send_frame(connection, OP_CLOSE, code, sizeof code);
    if (connection->state == READY)
        client->ready--;
    close(connection->fd);
    free(connection->leftover);
    connection->leftover = NULL;
    connection->leftover_length = 0;
    connection->state = IDLE;
    connection->returned = true;
}

void connection_resume(struct client *client, struct connection *connection)
{
    int size = CATCH_UP_BUFFER; /* a window of a few kilobytes would take its time */
    setsockopt(connection->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    watch(client, connection, EPOLLIN, connection->ended ? EPOLL_CTL_ADD : EPOLL_CTL_MOD);
}
