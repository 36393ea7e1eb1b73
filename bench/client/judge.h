/* Judging one message: its latency, and whether it was due. Judging what a gap says. */
#ifndef JUDGE_H
#define JUDGE_H

#include "connection.h"
#include "numbering.h"

/* *guess is where among the subscriptions the last one was found: bursts walk the channels in turn. */
void judge(struct client *client, struct connection *connection, const struct mark *mark, uint64_t now,
           uint32_t *guess);
void judge_gap(struct client *client, struct connection *connection, const struct gap *gap);

#endif
