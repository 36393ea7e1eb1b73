/* One WebSocket client: non-blocking connect, handshake, subscribe, read, close. */
#ifndef CONNECTION_H
#define CONNECTION_H

#include <stdbool.h>
#include <stdint.h>

#include "histogram.h"
#include "options.h"
#include "track.h"

enum state { IDLE, CONNECTING, UPGRADING, SUBSCRIBING, READY, CLOSED };

struct connection {
    int fd;
    uint8_t state;
    bool stalled;    /* chosen to stop reading */
    bool returned;   /* came or came back while the feed ran: what it missed before is not a loss */
    bool served;     /* was READY once */
    bool ended;      /* the peer hung up while this stalled connection did not read: not watched */
    uint16_t close_code;
    uint32_t id;
    uint32_t leftover_length;
    uint8_t *leftover; /* a frame or a response cut by the last read; NULL most of the time */
    uint64_t begun_ns;
    struct subscription *subscriptions;
};

/* What happens in a window. */
struct counts {
    uint64_t delivered, bytes, frames, pings, stalled_delivered;
    struct histogram latency, subscribe;
};

enum { CLOSE_CODES = 5000, HTTP_STATUSES = 600, READ_BUFFER = 1 << 20 };

struct client {
    const struct options *options;
    struct connection *connections;
    int epoll;
    uint32_t in_flight, ready, failed, closed, stalled_closed;
    uint32_t joined;     /* of the connections begun in the window, those that became READY */
    uint64_t joined_ns;  /* when the last of them did */
    bool quiet; /* no more churn; stalled connections read again */
    struct counts counts;
    /* Over the whole run: */
    struct tally tally, stalled_tally;
    uint64_t gap_notices;
    uint64_t closes[CLOSE_CODES];  /* by close code; 1006: no close frame */
    uint64_t refused[HTTP_STATUSES]; /* by HTTP status; 0: connect or read failed */
    uint8_t *buffer;               /* READ_BUFFER bytes, shared by all connections */
};

uint64_t now_ns(void);

/* Begin to connect. False, with errno set, when no descriptor or address could be had. */
bool connection_begin(struct client *client, struct connection *connection);
/* Handle what epoll reported. */
void connection_event(struct client *client, struct connection *connection, uint32_t events);
/* Send a close frame and drop the socket; the connection may be begun again. */
void connection_leave(struct client *client, struct connection *connection);
/* A stalled connection reads again. */
void connection_resume(struct client *client, struct connection *connection);

#endif
