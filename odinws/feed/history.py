"""Reads past messages of channels from the stream, in pages.

Of one channel, or of a wildcard, by direct gets (NATS ADR-31): a request without a consumer, so there is
nothing to clean up. Servers before 2.11 answer with one message instead of a batch: then there is one request
for each message. Of several channels by a consumer that lives as long as its page. A page names what the
stream no longer has of the range that it covers.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy

from odinws.access.channels import Channels
from odinws.errors import FeedError
from odinws.feed import stream
from odinws.feed.events import Lost, Message
from odinws.feed.stream import Holes

PAGE_MESSAGES = 256  # of a page at most
PAGE_BYTES = 64 << 10  # of their payloads, approximately
MAX_CHANNELS = 1024  # of one `newest`: NATS finds no more
_NO_MESSAGE = "404"
_END_OF_BATCH = "204"
_MESSAGE_SECONDS = 5.0
_IDLE_SECONDS = 1.0
_BATCHES = (2, 11)  # the first version of nats-server that answers with several messages


class Page(NamedTuple):
    """A page of past messages.

    Attributes:
        events: the messages of the requested channels in order, with `prev` 0, and before what follows it
            each range of which the stream no longer has everything.
        upto: every message of the channels up to here is in `events`, or is lost.
        last_seq: the latest sequence of the stream, of any channel.
    """

    events: list[Message | Lost]
    upto: int
    last_seq: int


class Newest(NamedTuple):
    """The newest messages of several channels.

    Attributes:
        messages: one of each channel that has any, in order; `prev` is 0.
        is_complete: whether these are all; False: there are more, which come after these.
        holes: what the stream has lost.
    """

    messages: list[Message]
    is_complete: bool
    holes: Holes


def reads_many(client: Client) -> bool:
    """Whether NATS answers with several messages: `newest`, and `page` of several channels, need it."""
    version = client.connected_server_version
    return (version.major, version.minor) >= _BATCHES


async def page(
    client: Client, name: str, rules: Channels, channels: Sequence[str], after: int, most: int, max_bytes: int
) -> Page:
    """Read the messages of channels after a sequence.

    A stream may delete messages while it is read. So its last sequence is read before the messages, and what
    it has lost afterwards.

    Args:
        name: of the stream.
        rules: which subject is which channel; messages of none are passed over.
        channels: one channel or wildcard; or several, see `reads_many`; or none, for all. With wildcards
            there may be messages of other channels too.
        after: the sequence after which the page begins.
        most: the maximum number of messages, those that are passed over included.
        max_bytes: of their payloads, approximately.

    Raises:
        FeedError: the stream does not exist, or can't be read in this way.
        nats.errors.Error, TimeoutError: NATS is lost.
    """
    state = (await stream.info(client, name)).state
    last_seq, upto, size, count = state.last_seq, after, 0, 0
    messages: list[Message] = []
    subjects = rules.subjects_of(*channels)
    if not subjects or (len(subjects) > 1 and not reads_many(client)):
        subjects = (rules.all_subjects,)
    if len(subjects) > 1:  # a consumer can't be told a number of bytes
        most = max(1, min(most, max_bytes * state.messages // max(1, state.bytes)))
    while upto < last_seq and count < most and size < max_bytes:
        left = most - count
        if len(subjects) == 1:
            request = {"seq": upto + 1, "next_by_subj": subjects[0]}
            found = [
                _stored(msg, rules) for msg in await _batch(client, name, request, left, max_bytes - size)
            ]
            is_complete = not found
        else:
            found = await _fetch(client, name, rules, subjects, upto + 1, left)
            is_complete = len(found) < left
        for message in found:
            if message.seq > last_seq:
                is_complete = True
                break
            if message.channel:
                messages.append(message)
            upto = message.seq
            count += 1
            size += len(message.payload)
        if is_complete:
            upto = last_seq
    if upto <= after:
        return Page([], upto, last_seq)
    return Page(_with_losses(messages, await stream.holes(client, name), after, upto), upto, last_seq)


def _with_losses(messages: list[Message], holes: Holes, after: int, upto: int) -> list[Message | Lost]:
    """The messages after `after` and up to `upto`, with what is lost between them."""
    events: list[Message | Lost] = []
    known = after
    for message in messages:
        if lost := holes.within(known + 1, message.seq - 1):
            events.append(lost)
        known = message.seq
        events.append(message)
    if lost := holes.within(known + 1, upto):
        events.append(lost)
    return events


async def last_seq(client: Client, name: str) -> int:
    """The latest sequence of the stream, of any subject. Raises as `page`."""
    return (await stream.info(client, name)).state.last_seq


async def extent(client: Client, name: str) -> tuple[int, Holes]:
    """The latest sequence of the stream, of any subject, and what it has lost. Raises as `page`."""
    last = await last_seq(client, name)
    return last, await stream.holes(client, name)


async def newest(
    client: Client, name: str, rules: Channels, channels: Sequence[str], upto: int, after: int, max_bytes: int
) -> Newest:
    """Read the newest message, up to a sequence, of each of several channels; see `reads_many`.

    Args:
        name: of the stream.
        rules: as for `page`.
        channels: at most `MAX_CHANNELS`; no wildcards.
        upto: messages behind this do not count, at least 1.
        after: of the newest messages those up to here are left out.
        max_bytes: of the payloads, approximately.

    Raises:
        FeedError: the stream does not exist, or allows no direct gets.
        nats.errors.Error, TimeoutError: NATS is lost.
    """
    subjects = rules.subjects_of(*channels)
    request = {"multi_last": subjects, "up_to_seq": upto, "seq": after + 1}
    found = await _batch(client, name, request, MAX_CHANNELS, max_bytes)
    left = int((found[-1].headers or {})["Nats-Num-Pending"]) if found else 0
    return Newest([_stored(msg, rules) for msg in found], not left, await stream.holes(client, name))


async def latest(client: Client, name: str, rules: Channels, subject: str) -> Message | None:
    """The newest message of a subject in the stream, if there is one."""
    request = json.dumps({"last_by_subj": subject})
    msg = await client.request(f"$JS.API.DIRECT.GET.{name}", request.encode(), timeout=_MESSAGE_SECONDS)
    if _is_answer(msg, _NO_MESSAGE):
        return None
    return _stored(msg, rules)


def subject_filter(subjects: Sequence[str]) -> dict[str, Any]:
    """A consumer's filter; servers before 2.10 know only the form for one subject."""
    return {"filter_subject": subjects[0]} if len(subjects) == 1 else {"filter_subjects": list(subjects)}


async def latest_of_all(
    client: Client, js: JetStreamContext, name: str, subjects: Sequence[str]
) -> dict[str, int]:
    """The sequence of the newest message of each subject.

    Raises:
        nats.errors.Error, TimeoutError: NATS is lost.
    """
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox, pending_msgs_limit=-1, pending_bytes_limit=-1)
    found: dict[str, int] = {}
    try:
        consumer = await stream.add_consumer(
            client,
            js,
            name,
            ConsumerConfig(
                deliver_subject=inbox,
                deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
                **subject_filter(subjects),
                ack_policy=AckPolicy.NONE,
                max_deliver=1,
                headers_only=True,
                inactive_threshold=5.0,
                idle_heartbeat=_IDLE_SECONDS,
                mem_storage=True,
                num_replicas=1,
            ),
        )
        async for msg in _deliveries(answers, consumer):
            found[msg.subject] = msg.metadata.sequence.stream
        await js.delete_consumer(name, consumer.name)
    finally:
        await answers.unsubscribe()
    return found


async def _batch(client: Client, name: str, request: dict[str, Any], most: int, max_bytes: int) -> list[Msg]:
    """The messages of one direct get, as many as it gives; empty if there are none."""
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    request = {**request, "batch": most, "max_bytes": max(1, max_bytes)}
    found: list[Msg] = []
    try:
        await client.publish(f"$JS.API.DIRECT.GET.{name}", json.dumps(request).encode(), reply=inbox)
        while len(found) < most:
            msg = await answers.next_msg(_MESSAGE_SECONDS)
            if _is_answer(msg, _END_OF_BATCH, _NO_MESSAGE):
                break
            found.append(msg)
            if not reads_many(client):
                break
    finally:
        await answers.unsubscribe()
    return found


async def _fetch(
    client: Client, name: str, rules: Channels, subjects: Sequence[str], start: int, most: int
) -> list[Message]:
    """The next messages of several subjects from `start` on; fewer than `most` if there are no more.

    The channel is "" as in `_stored`.

    The consumer waits for acknowledgements that never come, so it sends no more than these. It needs no
    permission that the feed does not need anyway.
    """
    js = client.jetstream()
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    found: list[Message] = []
    try:
        consumer = await stream.add_consumer(
            client,
            js,
            name,
            ConsumerConfig(
                deliver_subject=inbox,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=start,
                filter_subjects=list(subjects),
                ack_policy=AckPolicy.EXPLICIT,
                max_ack_pending=most,
                inactive_threshold=_MESSAGE_SECONDS,
                idle_heartbeat=_IDLE_SECONDS,
                mem_storage=True,
                num_replicas=1,
            ),
        )
        async for msg in _deliveries(answers, consumer, most):
            at = msg.metadata
            ts_ms = int(at.timestamp.timestamp() * 1000)
            channel = rules.channel_of(msg.subject) or ""
            found.append(Message(channel, at.sequence.stream, 0, ts_ms, msg.data))
        await js.delete_consumer(name, consumer.name)
    finally:
        await answers.unsubscribe()
    return found


async def _deliveries(
    answers: Subscription, consumer: ConsumerInfo, most: float = math.inf
) -> AsyncIterator[Msg]:
    """What a consumer sends to its inbox, until that is all, or so many."""
    pending = consumer.num_pending or 0
    while pending and most > 0:
        msg = await answers.next_msg(_MESSAGE_SECONDS)
        if not msg.reply:  # a heartbeat: what was still to come has been deleted meanwhile
            return
        yield msg
        pending, most = msg.metadata.num_pending, most - 1


def _is_answer(msg: Msg, *expected: str) -> bool:
    """Whether a message is an answer of the server with one of these codes; False: it is a stored message.

    A stored message may have any headers, those of the server included. But the server adds its own behind
    them, among which is always the stream, and of several headers with one name the last counts.

    Raises:
        FeedError: it is an answer with another code.
    """
    headers = msg.headers or {}
    if "Nats-Stream" in headers:
        return False
    status = headers.get("Status", "")
    if status in expected:
        return True
    raise FeedError(f"the stream allows no direct gets: {status} {headers.get('Description', '')}".rstrip())


def _stored(msg: Msg, rules: Channels) -> Message:
    """A message as a direct get gives it; one of no channel that is carried has the channel ""."""
    headers = msg.headers or {}
    ts_ms = int(datetime.fromisoformat(headers["Nats-Time-Stamp"]).timestamp() * 1000)
    channel = rules.channel_of(headers["Nats-Subject"]) or ""
    return Message(channel, int(headers["Nats-Sequence"]), 0, ts_ms, msg.data)
