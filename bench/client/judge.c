/*
 * Whether a message was due, judged from the mark that the feed puts into each payload:
 * "mark":"CCCCC.NNNNNNNNNN.TTTTTTTTTTTTTTTTTTT" (channel index, count on that channel from 1, nanoseconds of the
 * monotonic clock at the instant of publishing). The server's own numbers are not trusted.
 *
 * `seq` of odinws is the stream's. The feed is alone in its stream and walks the channels in turn, so of C channels
 * message n (from 1) of channel c (from 0) has the sequence (n - 1) C + c + 1, and the one before it on its channel
 * C less. So a gap, which names sequences, tells exactly which messages were left out.
 */
#define _GNU_SOURCE
#include "client.h"

#include <string.h>

static struct tally *tally_of(const struct connection *connection)
{
    return connection->stalled ? &client.stalled_tally : &client.tally;
}

static uint64_t digits(const uint8_t *at, int count)
{
    uint64_t value = 0;
    for (int i = 0; i < count; i++)
        value = value * 10 + (uint64_t)(at[i] - '0');
    return value;
}

/* The whole number behind key. False when there is none. */
static bool value(const uint8_t *data, size_t length, const char *key, uint64_t *number)
{
    const uint8_t *at = memmem(data, length, key, strlen(key));
    int count = 0;
    if (!at)
        return false;
    at += strlen(key);
    while (at + count < data + length && at[count] >= '0' && at[count] <= '9')
        count++;
    *number = digits(at, count);
    return count;
}

/* Whether the envelope in data has the seq and prev that are due to message `number` of the channel. */
static bool well_numbered(const uint8_t *data, size_t length, uint32_t channel, uint32_t number)
{
    uint64_t seq, prev, due = (uint64_t)(number - 1) * options.channels + channel + 1;
    return value(data, length, "\"seq\":", &seq) && value(data, length, "\"prev\":", &prev) && seq == due &&
           prev == (number > 1 ? due - options.channels : 0);
}

/* Of a connection that came later, whatever comes first is the beginning; of others message 1 is. */
static void start(const struct connection *connection, struct subscription *subscription, uint32_t number)
{
    if (connection->returned && !subscription->last)
        subscription->last = number - 1;
}

/* Step on to `number`, which lies ahead; what is skipped is missing. */
static void advance(struct subscription *subscription, uint32_t number, struct tally *tally)
{
    uint32_t ahead = number - subscription->last;
    if (ahead > 1) {
        tally->gaps++;
        tally->missing += ahead - 1;
    }
    subscription->recent = ahead < 64 ? subscription->recent << ahead | 1 : 1;
    subscription->last = number;
}

/*
 * A late message takes back its "missing" and counts as disorder. Numbers more than 64 behind count as duplicates:
 * they are no longer remembered.
 */
static void track(struct connection *connection, struct subscription *subscription, uint32_t number)
{
    struct tally *tally = tally_of(connection);
    start(connection, subscription, number);
    uint32_t behind = subscription->last - number;
    if (number > subscription->last) {
        advance(subscription, number, tally);
    } else if (behind >= 64 || subscription->recent >> behind & 1) {
        tally->duplicates++;
        return;
    } else {
        subscription->recent |= 1ull << behind;
        tally->disorder++;
        if (tally->missing)
            tally->missing--;
    }
    subscription->had++;
}

/*
 * The server says that it left out messages first to last (none if last < first). They are told, not missing; what lies
 * before them is missing. Any of them that came already, or was told already, is a duplicate.
 */
static void track_told(struct connection *connection, struct subscription *subscription, uint32_t first, uint32_t last)
{
    struct tally *tally = tally_of(connection);
    if (last < first)
        return;
    start(connection, subscription, first);
    if (first <= subscription->last) {
        uint32_t end = last < subscription->last ? last : subscription->last;
        tally->duplicates += end - first + 1;
        first = subscription->last + 1;
        if (last < first)
            return;
    }
    advance(subscription, first, tally);
    uint32_t more = last - first;
    subscription->recent = more < 64 ? subscription->recent << more | ((1ull << more) - 1) : ~0ull;
    subscription->last = last;
    subscription->told += more + 1;
    tally->told += more + 1;
}

static struct subscription *find(struct connection *connection, uint32_t channel, uint32_t *guess)
{
    uint32_t at = *guess;
    do {
        if (connection->subscriptions[at].channel == channel) {
            *guess = at;
            return &connection->subscriptions[at];
        }
        at = at + 1 < options.subscribed ? at + 1 : 0;
    } while (at != *guess);
    return NULL;
}

bool judge(struct connection *connection, const struct frame *frame, uint64_t now, uint32_t *guess)
{
    static const char needle[] = "\"mark\":\"";
    enum { NEEDLE = sizeof needle - 1, MARK = 36 };
    const uint8_t *begin = frame->payload, *end = begin + frame->length, *at;
    while ((at = memmem(begin, (size_t)(end - begin), needle, NEEDLE)) && end - at >= NEEDLE + MARK) {
        at += NEEDLE;
        uint32_t channel = (uint32_t)digits(at, 5), number = (uint32_t)digits(at + 6, 10);
        uint64_t sent_ns = digits(at + 17, 19);
        if (options.numbered && !well_numbered(begin, (size_t)(at - begin), channel, number))
            tally_of(connection)->misnumbered++;
        if (connection->stalled) {
            client.window.stalled_delivered++;
        } else {
            client.window.delivered++;
            if (!connection->vanishes || !client.return_ns) /* of those who stay */
                histogram_add(&client.window.latency, now > sent_ns ? now - sent_ns : 0);
        }
        if (connection->behind && sent_ns >= connection->begun_ns) {
            connection->behind = false;
            client.caught_up++;
            client.caught_up_ns = now;
        }
        struct subscription *subscription = find(connection, channel, guess);
        if (subscription)
            track(connection, subscription, number);
        else
            tally_of(connection)->stray++;
        begin = at + MARK;
    }
    return begin != frame->payload;
}

void judge_gap(struct connection *connection, const struct frame *frame)
{
    uint64_t index, from, to, channels = options.channels;
    uint32_t guess = 0;
    if (!value(frame->payload, frame->length, "\"channel\":\"token.T", &index) ||
        !value(frame->payload, frame->length, "\"from\":", &from) ||
        !value(frame->payload, frame->length, "\"to\":", &to))
        return;
    struct subscription *subscription = find(connection, (uint32_t)index, &guess);
    if (!subscription) {
        tally_of(connection)->stray++;
        return;
    }
    uint64_t one = index + 1; /* the sequence of the channel's first message */
    uint32_t first = from <= one ? 1 : (uint32_t)((from - one + channels - 1) / channels + 1);
    uint32_t last = to < one ? 0 : (uint32_t)((to - one) / channels + 1);
    track_told(connection, subscription, first, last);
}

void judge_end(struct connection *connection, uint64_t published)
{
    bool open = connection->state == READY, equal = true;
    uint64_t *sum = connection->stalled ? &client.stalled_tail_missing : &client.tail_missing;
    if (!open && connection->state != CLOSED)
        return;
    if (!open)
        sum = &client.after_close;
    for (uint32_t i = 0; i < options.subscribed; i++) {
        const struct subscription *subscription = &connection->subscriptions[i];
        uint32_t last = subscription->last;
        uint32_t final = (uint32_t)((published + options.channels - 1 - subscription->channel) / options.channels);
        uint32_t rest = final > last && (last || !connection->returned) ? final - last : 0;
        *sum += rest;
        equal = equal && subscription->had + subscription->told + (open ? 0 : rest) == final;
    }
    if (!equal && !connection->returned)
        *(connection->stalled ? &client.stalled_unequal : &client.unequal) += 1;
}
