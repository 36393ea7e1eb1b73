/* Centrifugo's protocol in Protobuf. Each command and reply stands behind its length; numbers below 128 are one byte. */
#include "client.h"

#include <stdio.h>
#include <string.h>

/* Tags: the number of a field, and 2 for bytes or 0 for a varint. */
enum { ID = 1 << 3, COMMAND_CONNECT = 4 << 3 | 2, COMMAND_SUBSCRIBE = 5 << 3 | 2, CHANNEL = 1 << 3 | 2 };
enum { REPLY_SUBSCRIBE = 6 << 3 | 2 };

bool centrifugo_is_ping(const struct frame *frame)
{
    return frame->length == 1 && !*frame->payload;
}

size_t centrifugo_connect(uint8_t *out)
{
    static const uint8_t command[] = {4, ID, 1, COMMAND_CONNECT, 0};
    memcpy(out, command, sizeof command);
    return sizeof command;
}

size_t centrifugo_subscribe(uint8_t *out, size_t room, const struct connection *connection)
{
    uint8_t *at = out;
    for (uint32_t i = 0; i < options.subscribed; i++) {
        char channel[64];
        uint8_t length = (uint8_t)snprintf(channel, sizeof channel, options.item, connection->subscriptions[i].channel);
        uint32_t id = i + 128; /* always two bytes */
        if (out + room - at < (ssize_t)sizeof channel + 8 || id >= 1 << 14)
            return 0;
        const uint8_t head[] = {(uint8_t)(length + 7), ID, (uint8_t)(0x80 | id), (uint8_t)(id >> 7),
                                COMMAND_SUBSCRIBE, (uint8_t)(length + 2), CHANNEL, length};
        memcpy(at, head, sizeof head);
        memcpy(at + sizeof head, channel, length);
        at += sizeof head + length;
    }
    return (size_t)(at - out);
}

/* The byte behind a varint. */
static const uint8_t *skip(const uint8_t *at, const uint8_t *end)
{
    while (at < end && *at & 0x80)
        at++;
    return at + 1;
}

bool centrifugo_is_ack(const struct frame *frame)
{
    const uint8_t *end = frame->payload + frame->length, *at = skip(frame->payload, end);
    if (at < end && *at == ID)
        at = skip(at + 1, end);
    return at < end && *at == REPLY_SUBSCRIBE;
}
