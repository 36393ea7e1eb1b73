#define _GNU_SOURCE
#include "numbering.h"

#include <string.h>

/* The whole number behind key. False when there is none. */
static bool value(const uint8_t *data, size_t length, const char *key, uint64_t *number)
{
    const uint8_t *end = data + length, *at = memmem(data, length, key, strlen(key));
    if (!at)
        return false;
    at += strlen(key);
    const uint8_t *digits = at;
    *number = 0;
    while (at < end && *at >= '0' && *at <= '9')
        *number = *number * 10 + (uint64_t)(*at++ - '0');
    return at > digits;
}

bool numbering_fits(const uint8_t *data, size_t length, const struct mark *mark, uint32_t channels)
{
    uint64_t seq, prev, due = (uint64_t)(mark->number - 1) * channels + mark->channel + 1;
    return value(data, length, "\"seq\":", &seq) && value(data, length, "\"prev\":", &prev) && seq == due &&
           prev == (mark->number > 1 ? due - channels : 0);
}

bool gap_read(const uint8_t *data, size_t length, struct gap *gap)
{
    static const char head[] = "{\"type\":\"gap\",\"channel\":\"";
    size_t before = sizeof head - 1;
    if (length <= before || memcmp(data, head, before))
        return false;
    const uint8_t *quote = memchr(data + before, '"', length - before);
    if (!quote)
        return false;
    gap->channel = (const char *)data + before;
    gap->channel_length = (size_t)(quote - data) - before;
    return value(data, length, "\"from\":", &gap->from) && value(data, length, "\"to\":", &gap->to);
}

void gap_numbers(const struct gap *gap, uint32_t channel, uint32_t channels, uint32_t *first, uint32_t *last)
{
    uint64_t one = channel + 1ull; /* the sequence of the channel's first message */
    *first = gap->from <= one ? 1 : (uint32_t)((gap->from - one + channels - 1) / channels + 1);
    *last = gap->to < one ? 0 : (uint32_t)((gap->to - one) / channels + 1);
}
