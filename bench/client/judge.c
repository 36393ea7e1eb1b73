#include "judge.h"

#include <string.h>

static struct subscription *find(struct client *client, struct connection *connection, uint32_t channel,
                                 uint32_t *guess)
{
    uint32_t count = client->options->subscribed;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = *guess + i < count ? *guess + i : *guess + i - count;
        if (connection->subscriptions[at].channel == channel) {
            *guess = at;
            return &connection->subscriptions[at];
        }
    }
    return NULL;
}

void judge(struct client *client, struct connection *connection, const struct mark *mark, uint64_t now,
           uint32_t *guess)
{
    struct counts *counts = &client->counts;
    struct tally *tally = connection->stalled ? &client->stalled_tally : &client->tally;
    struct subscription *subscription = find(client, connection, mark->channel, guess);
    if (connection->stalled) {
        counts->stalled_delivered++;
    } else {
        counts->delivered++;
        histogram_add(&counts->latency, now > mark->sent_ns ? now - mark->sent_ns : 0);
    }
    if (subscription)
        track(subscription, mark->number, client->options->expect_first && !connection->returned, tally);
    else
        tally->stray++;
}

void judge_gap(struct client *client, struct connection *connection, const struct gap *gap)
{
    const struct options *options = client->options;
    struct tally *tally = connection->stalled ? &client->stalled_tally : &client->tally;
    for (uint32_t i = 0; i < options->subscribed; i++) {
        struct subscription *subscription = &connection->subscriptions[i];
        const char *name = options->names[subscription->channel];
        if (strlen(name) == gap->channel_length && !memcmp(name, gap->channel, gap->channel_length)) {
            uint32_t first, last;
            gap_numbers(gap, subscription->channel, options->channels, &first, &last);
            track_told(subscription, first, last, options->expect_first && !connection->returned, tally);
            return;
        }
    }
    tally->stray++;
}
