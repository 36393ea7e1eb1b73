/* Judging one message: its latency, and whether it was due. */
#ifndef JUDGE_H
#define JUDGE_H

#include "connection.h"

/* *guess is where among the subscriptions the last one was found: bursts walk the channels in turn. */
void judge(struct client *client, struct connection *connection, const struct mark *mark, uint64_t now,
           uint32_t *guess);

#endif
