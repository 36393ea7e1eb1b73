/*
 * The bare send loop: what fan-out costs when there is nothing in the server but epoll and send().
 *
 *   server BATCH PORT FEED_SOCKET PING_SECONDS PROCESSES
 *
 * BATCH 0: one send() per message and connection. BATCH 1: the messages that came in with one read of the feed go out
 * to each connection in one writev(). A connection whose socket does not take everything at once is closed: the loop
 * has no queues. PING_SECONDS 0: no pings. PROCESSES share the port (SO_REUSEPORT), each with a feed of its own.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 1024, FEED_SIZE = 1 << 22, REQUEST_SIZE = 1 << 16, PASS = 64, HEADER = 10 };
enum { CHANNELS = 100000, DESCRIPTORS = 1 << 20 /* at most */ };

struct client;

/* Its subscribers are an array, in no order. */
struct channel {
    struct client **subscribers;
    uint32_t count, capacity;
};

struct client {
    int fd;
    bool open, gone;
    struct channel **channels; /* those it subscribed to */
    uint32_t channel_count, channel_capacity;
    uint64_t due; /* bit i: message i of this pass */
};

static struct channel channels[CHANNELS];
static int poller, listener, feed;
static int batch, ping_seconds;
static char feed_buffer[FEED_SIZE];
static size_t feed_length;
static struct client *clients[DESCRIPTORS]; /* by descriptor, NULL where there is none */
static int highest; /* of those descriptors */
static struct client **touched;
static uint32_t touched_count;
static struct iovec pass[PASS];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* An array of pointers with room for one more. */
static void *grown(void *array, uint32_t count, uint32_t *capacity)
{
    if (count < *capacity)
        return array;
    *capacity = *capacity ? *capacity * 2 : 4;
    return realloc(array, *capacity * sizeof(void *));
}

/* Of a name such as token.T12, with anything behind it. */
static struct channel *channel_of(const char *name)
{
    return &channels[strtoul(name + sizeof "token.T" - 1, NULL, 10) % CHANNELS];
}

static void add(struct channel *channel, struct client *client)
{
    channel->subscribers = grown(channel->subscribers, channel->count, &channel->capacity);
    channel->subscribers[channel->count++] = client;
    client->channels = grown(client->channels, client->channel_count, &client->channel_capacity);
    client->channels[client->channel_count++] = channel;
}

static void bury(struct client *client)
{
    for (uint32_t i = 0; i < client->channel_count; i++) {
        struct channel *channel = client->channels[i];
        for (uint32_t j = 0; j < channel->count; j++)
            if (channel->subscribers[j] == client)
                channel->subscribers[j--] = channel->subscribers[--channel->count];
    }
    clients[client->fd] = NULL;
    close(client->fd);
    free(client->channels);
    free(client);
}

static void watch(int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event))
        die("epoll_ctl");
}

static void mark_gone(struct client *client)
{
    client->gone = true;
    shutdown(client->fd, SHUT_RDWR); /* its event closes it, outside of any walk */
}

static size_t frame_header(uint8_t *out, unsigned opcode, size_t length)
{
    out[0] = (uint8_t)(0x80 | opcode);
    if (length < 126) {
        out[1] = (uint8_t)length;
        return 2;
    }
    out[1] = 126;
    out[2] = (uint8_t)(length >> 8);
    out[3] = (uint8_t)length;
    return 4;
}

static void deliver(struct client *client, const void *data, size_t length)
{
    if (!client->gone && send(client->fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)length)
        mark_gone(client);
}

/* Walk what the pass has for each connection; the frames of a connection leave in one writev(). */
static void flush_pass(void)
{
    for (uint32_t i = 0; i < touched_count; i++) {
        struct client *client = touched[i];
        struct iovec pieces[PASS];
        int count = 0;
        ssize_t total = 0;
        for (uint64_t due = client->due; due; due &= due - 1) {
            pieces[count] = pass[__builtin_ctzll(due)];
            total += (ssize_t)pieces[count++].iov_len;
        }
        client->due = 0;
        if (!client->gone && writev(client->fd, pieces, count) != total)
            mark_gone(client);
    }
    touched_count = 0;
}

static void touch(struct client *client, unsigned position)
{
    static uint32_t capacity;
    if (!client->due) {
        touched = grown(touched, touched_count, &capacity);
        touched[touched_count++] = client;
    }
    client->due |= 1ull << position;
}

/* One line of the feed: the channel's name, a space, the text. The frame is made in place: its header overwrites what
   stands before the text. */
static void message(char *line, const char *end, unsigned position)
{
    struct channel *channel = channel_of(line);
    char *text = (char *)rawmemchr(line, ' ') + 1;
    size_t text_length = (size_t)(end - text);
    uint8_t start[HEADER];
    size_t header = frame_header(start, 1, text_length);
    pass[position] = (struct iovec){memcpy(text - header, start, header), header + text_length};
    for (uint32_t i = 0; i < channel->count; i++) {
        if (batch)
            touch(channel->subscribers[i], position);
        else
            deliver(channel->subscribers[i], pass[position].iov_base, pass[position].iov_len);
    }
}

static void read_feed(void)
{
    ssize_t got = recv(feed, feed_buffer + feed_length, FEED_SIZE - feed_length, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0)
        exit(0);
    feed_length += (size_t)got;
    char *line = feed_buffer, *end;
    unsigned position = 0;
    for (; (end = memchr(line, '\n', feed_length - (size_t)(line - feed_buffer))); line = end + 1) {
        message(line, end, position++);
        if (position == PASS) {
            flush_pass();
            position = 0;
        }
    }
    flush_pass();
    feed_length -= (size_t)(line - feed_buffer);
    memmove(feed_buffer, line, feed_length);
}

static void answer(struct client *client, unsigned opcode, const void *text, size_t length)
{
    uint8_t frame[HEADER + 256];
    size_t header = frame_header(frame, opcode, length);
    memcpy(frame + header, text, length);
    deliver(client, frame, header + length);
}

/* {"type":"subscribe","data":{"channels":["a","b"]}} */
static void subscribe(struct client *client, const char *text, size_t length)
{
    const char *at = memchr(text, '[', length), *end = text + length, *quote;
    while (at && (at = memchr(at, '"', (size_t)(end - at))) && (quote = memchr(at + 1, '"', (size_t)(end - at - 1)))) {
        add(channel_of(at + 1), client);
        at = quote + 1;
    }
    static const char ack[] = "{\"type\":\"subscription_ack\"}";
    answer(client, 1, ack, sizeof ack - 1);
}

/* Frames of clients come whole in these scenarios; one cut in two ends its connection. */
static void read_frames(struct client *client, uint8_t *data, size_t length)
{
    while (length >= 6) {
        size_t payload = data[1] & 0x7f, header = 6;
        if (payload == 126 && length >= 8) {
            payload = (size_t)(data[2] << 8 | data[3]);
            header = 8;
        }
        if (payload == 127 || length < header + payload)
            break;
        uint8_t *text = data + header, *key = text - 4;
        for (size_t i = 0; i < payload; i++)
            text[i] ^= key[i & 3];
        unsigned opcode = data[0] & 0x0f;
        if (opcode == 1)
            subscribe(client, (const char *)text, payload);
        else if (opcode == 9 && payload <= 125)
            answer(client, 10, text, payload);
        else if (opcode == 8)
            mark_gone(client);
        data += header + payload;
        length -= header + payload;
    }
    if (length)
        mark_gone(client);
}

static void read_client(struct client *client)
{
    static char data[REQUEST_SIZE];
    ssize_t got = recv(client->fd, data, sizeof data, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0 || client->gone) {
        bury(client);
        return;
    }
    if (client->open) {
        read_frames(client, (uint8_t *)data, (size_t)got);
        return;
    }
    /* The measuring client sends the key of RFC 6455, section 1.3, always; so the answer is that of the RFC. */
    static const char key[] = "\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    static const char response[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                                   "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    client->open = true;
    if (memmem(data, (size_t)got, key, sizeof key - 1))
        deliver(client, response, sizeof response - 1);
    else
        mark_gone(client);
}

static void accept_clients(void)
{
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct client *client = calloc(1, sizeof *client);
        client->fd = fd;
        clients[fd] = client;
        highest = fd > highest ? fd : highest;
        watch(fd);
    }
}

static void ping_everyone(void)
{
    for (int i = 0; i <= highest; i++)
        if (clients[i] && clients[i]->open)
            answer(clients[i], 9, "", 0);
}

static void start(int port, const char *feed_path)
{
    signal(SIGPIPE, SIG_IGN);
    poller = epoll_create1(EPOLL_CLOEXEC);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(listener, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096))
        die("listen");
    feed = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    strncpy(path.sun_path, feed_path, sizeof path.sun_path - 1);
    if (connect(feed, (struct sockaddr *)&path, sizeof path))
        die("feed");
    watch(listener);
    watch(feed);
}

int main(int count, char **arguments)
{
    if (count < 6) {
        fputs("usage: server BATCH PORT FEED_SOCKET PING_SECONDS PROCESSES\n", stderr);
        return 2;
    }
    batch = atoi(arguments[1]);
    ping_seconds = atoi(arguments[4]);
    for (int process = 1; process < atoi(arguments[5]) && fork(); process++)
        ;
    start(atoi(arguments[2]), arguments[3]);
    struct epoll_event events[EVENTS];
    time_t next_ping = time(NULL) + ping_seconds;
    for (;;) {
        int ready = epoll_wait(poller, events, EVENTS, ping_seconds ? 1000 : -1);
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                accept_clients();
            else if (fd == feed)
                read_feed();
            else if (clients[fd])
                read_client(clients[fd]);
        }
        if (ping_seconds && time(NULL) >= next_ping) {
            ping_everyone();
            next_ping = time(NULL) + ping_seconds;
        }
    }
}
