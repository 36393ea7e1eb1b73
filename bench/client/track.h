/*
 * What a connection has had of each channel it subscribed to, judged from the mark that the feed puts into each
 * payload: "mark":"CCCCC.NNNNNNNNNN.TTTTTTTTTTTTTTTTTTT" (channel index, count on that channel from 1, nanoseconds
 * of the monotonic clock at the instant of publishing). The server's own numbers are not trusted.
 */
#ifndef TRACK_H
#define TRACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mark {
    uint32_t channel, number;
    uint64_t sent_ns;
};

/* The next mark in data; *end is the offset behind it. False when there is none (or one cut short). */
bool mark_find(const uint8_t *data, size_t length, struct mark *mark, size_t *end);

struct subscription {
    uint32_t channel;
    uint32_t last;   /* 0: nothing yet */
    uint32_t had;    /* messages, each counted once */
    uint32_t told;   /* messages that the server said it left out */
    uint64_t recent; /* bit i: last - i was seen, or told */
};

struct tally {
    uint64_t gaps, missing, duplicates, disorder, stray, told, misnumbered;
};

/*
 * Judge one message. from_start: the connection subscribed before the first message, so the first number due is 1;
 * otherwise whatever comes first is the beginning. A late message takes back its "missing" and counts as disorder.
 * Numbers more than 64 behind count as duplicates: they are no longer remembered.
 */
void track(struct subscription *subscription, uint32_t number, bool from_start, struct tally *tally);

/*
 * The server says that it left out messages first to last of the channel (none if last < first). They are told, not
 * missing; what lies before them is missing. Any of them that came already, or was told already, is a duplicate.
 */
void track_told(struct subscription *subscription, uint32_t first, uint32_t last, bool from_start, struct tally *tally);

/* What is still missing at the end, when `final` messages were published on the channel. */
uint64_t track_tail(const struct subscription *subscription, uint32_t final, bool from_start);

/*
 * Choose count of total channels for connection id, without repetition, the same for the same seed.
 * A prefix of a permutation: affine for few of many, so it needs no memory of the size of total.
 */
void track_choose(struct subscription *subscriptions, uint32_t count, uint32_t total, uint32_t id, uint64_t seed);

#endif
