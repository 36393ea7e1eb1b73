#define _GNU_SOURCE
#include "registry.h"

#include <stdlib.h>
#include <string.h>

enum { SLOTS = 1 << 16 }; /* open addressing; far more than any scenario has channels */

static struct channel table[SLOTS];

struct channel *registry_channel(const char *name, size_t length)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (uint8_t)name[i]) * 16777619u;
    for (uint32_t at = hash % SLOTS;; at = (at + 1) % SLOTS) {
        struct channel *channel = &table[at];
        if (!channel->name)
            channel->name = strndup(name, length);
        if (!strncmp(channel->name, name, length) && !channel->name[length])
            return channel;
    }
}

void registry_subscribe(struct channel *channel, struct client *client)
{
    for (uint32_t i = 0; i < client->seat_count; i++)
        if (client->seats[i].channel == channel)
            return;
    if (channel->count == channel->capacity) {
        channel->capacity = channel->capacity ? channel->capacity * 2 : 4;
        channel->subscribers = realloc(channel->subscribers, channel->capacity * sizeof *channel->subscribers);
    }
    client->seats = realloc(client->seats, (client->seat_count + 1) * sizeof *client->seats);
    client->seats[client->seat_count++] = (struct seat){channel, channel->count};
    channel->subscribers[channel->count++] = client;
}

void registry_remove(struct client *client)
{
    for (uint32_t i = 0; i < client->seat_count; i++) {
        struct channel *channel = client->seats[i].channel;
        struct client *last = channel->subscribers[--channel->count];
        channel->subscribers[client->seats[i].position] = last;
        for (uint32_t j = 0; last != client && j < last->seat_count; j++)
            if (last->seats[j].channel == channel)
                last->seats[j].position = client->seats[i].position;
    }
    free(client->seats);
    client->seats = NULL;
    client->seat_count = 0;
}
