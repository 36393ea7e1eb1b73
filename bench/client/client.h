/*
 * A measuring WebSocket client: opens many connections, subscribes, counts and judges what arrives.
 *
 *   client.c      options, commands and answers, when connections are begun
 *   connection.c  one connection
 *   frames.c      RFC 6455 and RFC 7692
 *   centrifugo.c  Centrifugo's protocol in Protobuf
 *   mqtt.c        MQTT 3.1.1
 *   tls.c         TLS, where OpenSSL's headers were found
 *   judge.c       whether a message was due
 */
#ifndef CLIENT_H
#define CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Variables of the environment. driver.py is the only writer of them, gives all, and explains them. */
#define TEXT_OPTIONS(X)                                                                                                 \
    X(path) X(headers) X(hello) X(greeting) X(prefix) X(item) X(separator) X(suffix)                                   \
    X(since) X(since_item) X(since_suffix) X(ack) X(ask) X(reply)
#define NUMBER_OPTIONS(X)                                                                                              \
    X(port) X(connections) X(first_id) X(channels) X(subscribed) X(in_flight) X(ramp_per_second) X(stall_permille)     \
    X(churn_per_second) X(joins) X(join_rate) X(vanishing) X(away_ms) X(seed) X(binary) X(deflate) X(numbered)         \
    X(in_path) X(mqtt) X(protobuf) X(sse) X(tls)

/* What happens in a window; what there was so far, and what the end showed; what is wrong with messages. */
#define WINDOW_COUNTS(X) X(delivered) X(stalled_delivered) X(bytes) X(frames) X(pings) X(churned)
#define COUNTS(X)                                                                                                      \
    X(ready) X(failed) X(closed) X(stalled_closed) X(joined) X(returned) X(caught_up) X(gap_notices)                   \
    X(tail_missing) X(stalled_tail_missing) X(after_close) X(unequal) X(stalled_unequal)
#define TALLY_COUNTS(X) X(gaps) X(missing) X(duplicates) X(disorder) X(stray) X(told) X(misnumbered)

#define TEXT_FIELD(name) const char *name;
#define NUMBER_FIELD(name) uint32_t name;
#define COUNT_FIELD(name) uint64_t name;

struct options {
    TEXT_OPTIONS(TEXT_FIELD)
    NUMBER_OPTIONS(NUMBER_FIELD)
};

/* Log-linear, of nanoseconds: 60 octaves of 32 buckets, exact below 64, above to about 3 %. */
enum { BUCKETS = 1920 };
struct histogram {
    uint64_t longest, buckets[BUCKETS];
};

struct window {
    WINDOW_COUNTS(COUNT_FIELD)
    uint64_t longest_pass_ns;
    struct histogram latency, subscribe;
};

struct tally {
    TALLY_COUNTS(COUNT_FIELD)
};

struct subscription {
    uint32_t channel;
    uint32_t last;   /* 0: nothing yet */
    uint32_t had;    /* messages, each counted once */
    uint32_t told;   /* messages that the server said it left out */
    uint64_t recent; /* bit i: last - i was seen, or told */
};

struct connection {
    int fd;
    enum {
        IDLE,
        CONNECTING,
        SECURING,
        UPGRADING,
        GREETING,
        SUBSCRIBING,
        READY,
        CLOSED, /* after READY, by the server */
    } state;
    bool stalled;  /* chosen to stop reading */
    bool returned; /* came or came back while the feed ran: what it missed before is not a loss */
    bool waits;    /* to be begun again */
    bool vanishes; /* chosen to vanish */
    bool behind;   /* came back, and has nothing yet that was published since */
    uint16_t code; /* of the close frame, or the status of a handshake that failed; 0: none */
    uint32_t id;
    uint32_t leftover_length;
    uint8_t *leftover; /* a frame or a response cut by the last read; NULL most of the time */
    uint64_t begun_ns;
    void *tls; /* NULL: none */
    struct subscription *subscriptions;
};

enum { COMMAND_SIZE = 60000, CLOSE_CODES = 5000, HTTP_STATUSES = 600, READ_BUFFER = 1 << 20 };

struct client {
    int epoll;
    bool quiet; /* no more churn and joins; stalled connections read again */
    uint32_t in_flight, waiting;
    uint64_t started_ns, window_ns;
    uint64_t joined_ns, returned_ns, caught_up_ns; /* when the last of those who join, or came back, had */
    uint64_t return_ns;                            /* when those who vanished may come back; 0: none has vanished */
    double window_cpu;                             /* seconds used when the window began */
    struct window window;
    COUNTS(COUNT_FIELD)
    struct tally tally, stalled_tally;
    uint64_t closes[CLOSE_CODES];    /* by close code; 1006: no close frame */
    uint64_t refused[HTTP_STATUSES]; /* by HTTP status; 0: connect or read failed */
    struct connection *connections;
};

struct frame {
    unsigned opcode;
    bool deflated; /* its first reserved bit is set (RFC 7692, section 6) */
    const uint8_t *payload;
    size_t length;
};

enum { OP_TEXT = 1, OP_BINARY = 2, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10 };

extern struct options options;
extern struct client client;

/* Begin to connect; if that fails at once, the connection counts as failed. */
void connection_begin(struct connection *connection);
/* Begin it again, a second after its last beginning. */
void connection_wait(struct connection *connection);
/* Something came for a connection that epoll watches. */
void connection_event(struct connection *connection);
/* Send a close frame and drop the socket; the connection may be begun again. */
void connection_leave(struct connection *connection);
/* Drop the socket without a word; the connection may be begun again, and then resumes if the server can. */
void connection_vanish(struct connection *connection);
/* A stalled connection reads again. */
void connection_resume(struct connection *connection);

/*
 * Read one frame at data; returns its size, 0 if it is not whole yet, -1 if it is masked, or longer than half a
 * READ_BUFFER, or has a reserved bit for which there is no extension.
 */
ssize_t frame_read(const uint8_t *data, size_t length, struct frame *frame);
/* The same for an event of Server-Sent Events, whose payload is all its lines. */
ssize_t event_read(const uint8_t *data, size_t length, struct frame *frame);
/* Write a masked frame of at most 65,535 bytes of payload; out needs length + 8 bytes. Returns its size. */
size_t frame_write(uint8_t *out, unsigned opcode, const void *payload, size_t length);
/*
 * Replace the payload of a compressed frame by the message, which holds until the next call. False: it is no deflate
 * stream, or the message is longer than 1 MiB.
 */
bool frame_inflate(struct frame *frame);

/*
 * The packets CONNECT and SUBSCRIBE of MQTT; out needs 16 bytes, or COMMAND_SIZE. Return their size, 0 if there is no
 * room.
 */
size_t mqtt_connect(uint8_t *out, uint32_t id);
size_t mqtt_subscribe(uint8_t *out, size_t room, const struct connection *connection);
bool mqtt_is_ack(const struct frame *frame);

/* The commands of Centrifugo's protocol; out needs 16 bytes, or COMMAND_SIZE. Return their size, 0 if there is no room. */
size_t centrifugo_connect(uint8_t *out);
size_t centrifugo_subscribe(uint8_t *out, size_t room, const struct connection *connection);
bool centrifugo_is_ack(const struct frame *frame);
bool centrifugo_is_ping(const struct frame *frame);

/* TLS without checks of the certificate. Begin it on a connected socket. False: there is no TLS. */
bool tls_begin(struct connection *connection);
/* 1: the handshake is done, 0: call again when something came, -1: it failed. */
int tls_handshake(struct connection *connection);
/* As send() and recv() of a socket that does not block, but all that came is read, if there is room. */
ssize_t tls_send(struct connection *connection, const void *data, size_t length);
ssize_t tls_receive(struct connection *connection, void *data, size_t room);
void tls_end(struct connection *connection);

/*
 * Judge all messages of a frame, by the marks that the feed puts into them; returns whether there was one. *guess is
 * where among the subscriptions the last one was found: bursts walk the channels in turn.
 */
bool judge(struct connection *connection, const struct frame *frame, uint64_t now, uint32_t *guess);
/* Judge {"type":"gap","channel":"..","from":..,"to":..}. */
void judge_gap(struct connection *connection, const struct frame *frame);
/* Judge what did not come, when so many messages were published on all channels in turn. */
void judge_end(struct connection *connection, uint64_t published);

uint64_t now_ns(void);
void histogram_add(struct histogram *histogram, uint64_t value);

#endif
