"""Reads past messages of a channel from the stream, in pages, by direct gets (NATS ADR-31).

A direct get is one request without a consumer, so there is nothing to clean up. Servers before 2.11 answer
with one message instead of a batch: then there is one request for each message. A page names what the stream
no longer has of the range that it covers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from odinws.errors import FeedError
from odinws.feed import stream
from odinws.feed.events import Lost, Message
from odinws.feed.stream import Holes

_NO_MESSAGE = "404"
_END_OF_BATCH = "204"
_MESSAGE_SECONDS = 5.0
_IDLE_SECONDS = 1.0
_BATCHES = (2, 11)  # the first version of nats-server that answers with several messages


class Page(NamedTuple):
    """A page of past messages.

    Attributes:
        events: the messages of the requested channels in order, and before what follows it each range of
            which the stream no longer has everything. The `prev` of a message refers to this page; that of
            the first one of a channel is the `prev` of the request, or the last sequence that is lost.
        upto: every message of the channels up to here is in `events`, or is lost.
        last_seq: the latest sequence of the stream, of any channel.
    """

    events: list[Message | Lost]
    upto: int
    last_seq: int


async def page(
    client: Client, name: str, prefix: str, channel: str, after: int, most: int, max_bytes: int, prev: int
) -> Page:
    """Read the messages of a channel after a sequence.

    A stream may delete messages while it is read. So its last sequence is read before the messages, and what
    it has lost afterwards.

    Args:
        name: of the stream.
        channel: a channel, or a wildcard.
        after: the sequence after which the page begins.
        most: the maximum number of messages.
        max_bytes: of their payloads, approximately.
        prev: of the first message of each channel.

    Raises:
        FeedError: the stream does not exist, or allows no direct gets.
        nats.errors.Error, TimeoutError: NATS is lost.
    """
    last_seq = (await stream.info(client, name)).state.last_seq
    upto, size = after, 0
    messages: list[Message] = []
    while upto < last_seq and len(messages) < most and size < max_bytes:
        found = await _batch(client, name, prefix + channel, upto + 1, most - len(messages), max_bytes - size)
        if not found:
            upto = last_seq
        for msg in found:
            seq = _seq(msg)
            if seq > last_seq:
                upto = last_seq
                break
            messages.append(Message(_subject(msg).removeprefix(prefix), seq, 0, _ts_ms(msg), msg.data))
            upto = seq
            size += len(msg.data)
    if upto <= after:
        return Page([], upto, last_seq)
    return Page(_with_losses(messages, await stream.holes(client, name), after, upto, prev), upto, last_seq)


def _with_losses(
    messages: list[Message], holes: Holes, after: int, upto: int, prev: int
) -> list[Message | Lost]:
    """The messages after `after` and up to `upto`, with what is lost between them, and the right `prev`."""
    events: list[Message | Lost] = []
    last: dict[str, int] = {}
    known = after
    for message in messages:
        if lost := holes.within(known + 1, message.seq - 1):
            events.append(lost)
            prev = lost.last
        known = message.seq
        events.append(message._replace(prev=max(prev, last.get(message.channel, 0))))
        last[message.channel] = known
    if lost := holes.within(known + 1, upto):
        events.append(lost)
    return events


async def latest(client: Client, name: str, prefix: str, channel: str) -> Message | None:
    """The newest message of a channel in the stream, if there is one."""
    request = json.dumps({"last_by_subj": prefix + channel})
    msg = await client.request(f"$JS.API.DIRECT.GET.{name}", request.encode(), timeout=_MESSAGE_SECONDS)
    if _is_answer(msg, _NO_MESSAGE):
        return None
    return Message(channel, _seq(msg), 0, _ts_ms(msg), msg.data)


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
        pending = consumer.num_pending or 0
        while pending:
            msg = await answers.next_msg(_MESSAGE_SECONDS)
            if not msg.reply:  # a heartbeat: what was still to come has been deleted meanwhile
                break
            found[msg.subject] = msg.metadata.sequence.stream
            pending = msg.metadata.num_pending
        await js.delete_consumer(name, consumer.name)
    finally:
        await answers.unsubscribe()
    return found


async def _batch(client: Client, name: str, subject: str, start: int, most: int, max_bytes: int) -> list[Msg]:
    """Messages from `start` on, as many as one request gives; empty if there are none."""
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    request = {"seq": start, "next_by_subj": subject, "batch": most, "max_bytes": max(1, max_bytes)}
    found: list[Msg] = []
    try:
        await client.publish(f"$JS.API.DIRECT.GET.{name}", json.dumps(request).encode(), reply=inbox)
        while len(found) < most:
            msg = await answers.next_msg(_MESSAGE_SECONDS)
            if _is_answer(msg, _END_OF_BATCH, _NO_MESSAGE):
                break
            found.append(msg)
            if (client.connected_server_version.major, client.connected_server_version.minor) < _BATCHES:
                break
    finally:
        await answers.unsubscribe()
    return found


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


def _subject(msg: Msg) -> str:
    return (msg.headers or {})["Nats-Subject"]


def _seq(msg: Msg) -> int:
    return int((msg.headers or {})["Nats-Sequence"])


def _ts_ms(msg: Msg) -> int:
    return int(datetime.fromisoformat((msg.headers or {})["Nats-Time-Stamp"]).timestamp() * 1000)
