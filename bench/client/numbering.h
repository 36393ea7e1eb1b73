/*
 * The numbers of odinws. Its `seq` is the stream's. The feed is alone in its stream and walks the channels in turn, so
 * of C channels message n (from 1) of channel c (from 0) has the sequence (n - 1) C + c + 1, and the one before it on
 * its channel C less. So a gap, which names sequences, tells exactly which messages were left out.
 */
#ifndef NUMBERING_H
#define NUMBERING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "track.h"

/* Whether the envelope in data has the seq and prev that are due to the message of that mark. */
bool numbering_fits(const uint8_t *data, size_t length, const struct mark *mark, uint32_t channels);

struct gap {
    const char *channel; /* its name, not ended by a zero */
    size_t channel_length;
    uint64_t from, to; /* sequences, inclusive */
};

/* Read {"type":"gap","channel":"..","from":..,"to":..}. False when it is not one. */
bool gap_read(const uint8_t *data, size_t length, struct gap *gap);

/* Which messages of the channel a gap names: *first to *last; none when *last < *first. */
void gap_numbers(const struct gap *gap, uint32_t channel, uint32_t channels, uint32_t *first, uint32_t *last);

#endif
