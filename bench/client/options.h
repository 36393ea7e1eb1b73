/* The command line: --name value pairs. driver.py is the only writer of it, and gives all of them. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct options {
    const char *path, *names_file;
    uint32_t port;
    uint32_t connections, first_id;
    uint32_t channels, subscribed; /* how many exist, how many of them each connection takes */
    uint32_t in_flight;            /* handshakes at one time */
    uint32_t rate;                 /* connections begun per second at most; 0: as in_flight allows */
    uint32_t stall_permille, churn_per_second;
    uint32_t joins, join_rate;     /* more connections, begun in the window, this many per second at most */
    uint32_t seed;
    uint32_t receive_buffer; /* SO_RCVBUF of stalled connections, bytes */
    bool binary, expect_first;
    bool deflate;       /* offer permessage-deflate without context takeover, and insist on it */
    bool numbered;      /* the server numbers as odinws does, and tells of what it leaves out: see numbering.h */
    /* The commands sent once the handshake is done: hello (a frame of its own unless empty), then
       prefix + item, item, ... + suffix. In an item %c is the channel's name and %i its index. */
    const char *hello, *prefix, *item, *separator, *suffix;
    const char *ack;              /* a frame with this in it means subscribed; empty: no waiting */
    const char *ask, *reply;      /* a frame that begins with ask is answered with reply; empty: none */
    char **names;
};

/* Exits with status 2 and one line on stderr when the command line or the names file is wrong. */
void options_read(struct options *options, int count, char **arguments);

/* Write the subscribe command for the given channel indices; returns its length, or exits when size is short. */
size_t options_command(const struct options *options, const uint32_t *channels, uint32_t count, char *out, size_t size);

#endif
