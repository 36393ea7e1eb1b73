/* MQTT 3.1.1 over WebSocket, at QoS 0. A frame carries whole packets. */
#include "client.h"

#include <stdio.h>
#include <string.h>

enum { CONNECT = 0x10, SUBSCRIBE = 0x82, SUBACK = 0x90 };

/* The remaining length (2.2.3), always in three bytes: 7 bits each, the lowest first. */
static uint8_t *put_length(uint8_t *at, size_t length)
{
    *at++ = 0x80 | (length & 0x7f);
    *at++ = 0x80 | (length >> 7 & 0x7f);
    *at++ = (uint8_t)(length >> 14 & 0x7f);
    return at;
}

static uint8_t *put_text(uint8_t *at, const char *text)
{
    size_t length = strlen(text);
    *at++ = (uint8_t)(length >> 8);
    *at++ = (uint8_t)length;
    memcpy(at, text, length);
    return at + length;
}

size_t mqtt_connect(uint8_t *out, uint32_t id)
{
    static const uint8_t head[] = {0, 4, 'M', 'Q', 'T', 'T', 4, 2 /* clean session */, 0, 0 /* no keep-alive */};
    char name[16];
    snprintf(name, sizeof name, "c%u", id);
    *out = CONNECT;
    uint8_t *at = put_length(out + 1, sizeof head + 2 + strlen(name));
    memcpy(at, head, sizeof head);
    return (size_t)(put_text(at + sizeof head, name) - out);
}

size_t mqtt_subscribe(uint8_t *out, size_t room, const struct connection *connection)
{
    uint8_t *body = out + 4, *at = body;
    *out = SUBSCRIBE;
    *at++ = 0;
    *at++ = 1; /* the packet's identifier */
    for (uint32_t i = 0; i < options.subscribed; i++) {
        char topic[64];
        snprintf(topic, sizeof topic, options.item, connection->subscriptions[i].channel);
        if (out + room - at < (ssize_t)sizeof topic + 3)
            return 0;
        at = put_text(at, topic);
        *at++ = 0; /* QoS */
    }
    put_length(out + 1, (size_t)(at - body));
    return (size_t)(at - out);
}

bool mqtt_is_ack(const struct frame *frame)
{
    return frame->length && frame->payload[0] == SUBACK;
}
