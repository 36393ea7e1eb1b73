/* Channel name -> its subscribers: an array, in no order. Names are never forgotten. */
#ifndef REGISTRY_H
#define REGISTRY_H

#include <stddef.h>
#include <stdint.h>

struct client;

struct channel {
    char *name;
    struct client **subscribers;
    uint32_t count, capacity;
};

struct seat {
    struct channel *channel;
    uint32_t position;
};

struct client {
    int fd;
    uint8_t open, gone;
    uint32_t seat_count;
    struct seat *seats;
    uint64_t due; /* bit i: message i of this pass */
};

/* The channel of that name, made when it is new. */
struct channel *registry_channel(const char *name, size_t length);
void registry_subscribe(struct channel *channel, struct client *client);
void registry_remove(struct client *client);

#endif
