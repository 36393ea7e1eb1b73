"""Reads past messages of a channel from the stream, in pages, by direct gets (NATS ADR-31).

A direct get is one request without a consumer, so there is nothing to clean up. Servers before 2.11 answer
with one message instead of a batch: then there is one request for each message.
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
from odinws.feed.events import Message

_NO_MESSAGE = "404"
_END_OF_BATCH = "204"
_MESSAGE_SECONDS = 5.0


class Page(NamedTuple):
    """A page of past messages.

    Attributes:
        messages: of the requested channels, in order. `prev` refers to this page; that of the first message
            of a channel is the `prev` of the request, or the last sequence that is lost.
        first_seq: messages between `after` and this sequence may be lost; `after` + 1: none is.
        upto: every message of the channels up to here is in `messages`, or is lost.
        last_seq: the latest sequence of the stream, of any channel.
    """

    messages: list[Message]
    first_seq: int
    upto: int
    last_seq: int


async def page(
    client: Client, stream: str, prefix: str, channel: str, after: int, most: int, max_bytes: int, prev: int
) -> Page:
    """Read the messages of a channel after a sequence.

    A stream may delete messages while it is read. So its last sequence is read before the messages, and its
    first one afterwards.

    Args:
        channel: a channel, or a wildcard.
        after: the sequence after which the page begins.
        most: the maximum number of messages.
        max_bytes: of their payloads, approximately.
        prev: of the first message of each channel.

    Raises:
        FeedError: the stream does not exist, or allows no direct gets.
        nats.errors.Error, TimeoutError: NATS is lost.
    """
    js = client.jetstream()
    last_seq = (await js.stream_info(stream)).state.last_seq
    first_seq, upto = after + 1, after
    messages: list[Message] = []
    last: dict[str, int] = {}
    size = 0
    while upto < last_seq and len(messages) < most and size < max_bytes:
        found = await _batch(
            client, stream, prefix + channel, upto + 1, most - len(messages), max_bytes - size
        )
        kept = (await js.stream_info(stream)).state.first_seq
        next_seq = _seq(found[0]) if found else last_seq + 1
        if kept > upto + 1 and next_seq > upto + 1:
            if messages:
                break  # the next page begins with this gap
            first_seq = min(kept, next_seq)
            prev = upto = first_seq - 1
        if not found:
            upto = max(upto, last_seq)
        for msg in found:
            seq, name = _seq(msg), (msg.headers or {})["Nats-Subject"].removeprefix(prefix)
            if seq > last_seq:
                upto = last_seq
                break
            messages.append(Message(name, seq, last.get(name, prev), _ts_ms(msg), msg.data))
            last[name] = upto = seq
            size += len(msg.data)
    return Page(messages, first_seq, upto, last_seq)


async def latest(client: Client, stream: str, prefix: str, channel: str) -> Message | None:
    """The newest message of a channel in the stream, if there is one."""
    request = json.dumps({"last_by_subj": prefix + channel})
    msg = await client.request(f"$JS.API.DIRECT.GET.{stream}", request.encode(), timeout=_MESSAGE_SECONDS)
    if _status(msg) == _NO_MESSAGE:
        return None
    _check(msg)
    return Message(channel, _seq(msg), 0, _ts_ms(msg), msg.data)


def subject_filter(subjects: Sequence[str]) -> dict[str, Any]:
    """A consumer's filter; servers before 2.10 know only the form for one subject."""
    return {"filter_subject": subjects[0]} if len(subjects) == 1 else {"filter_subjects": list(subjects)}


async def latest_of_all(
    client: Client, js: JetStreamContext, stream: str, subjects: Sequence[str]
) -> dict[str, int]:
    """The sequence of the newest message of each subject.

    Raises:
        nats.errors.Error, TimeoutError: NATS is lost.
    """
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox, pending_msgs_limit=-1, pending_bytes_limit=-1)
    found: dict[str, int] = {}
    try:
        consumer = await js.add_consumer(
            stream,
            ConsumerConfig(
                deliver_subject=inbox,
                deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
                **subject_filter(subjects),
                ack_policy=AckPolicy.NONE,
                max_deliver=1,
                headers_only=True,
                inactive_threshold=5.0,
                mem_storage=True,
                num_replicas=1,
            ),
        )
        pending = consumer.num_pending or 0
        while pending:
            msg = await answers.next_msg(_MESSAGE_SECONDS)
            found[msg.subject] = msg.metadata.sequence.stream
            pending = msg.metadata.num_pending
        await js.delete_consumer(stream, consumer.name)
    finally:
        await answers.unsubscribe()
    return found


async def _batch(
    client: Client, stream: str, subject: str, start: int, most: int, max_bytes: int
) -> list[Msg]:
    """Messages from `start` on, as many as one request gives; empty if there are none."""
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    request = {"seq": start, "next_by_subj": subject, "batch": most, "max_bytes": max(1, max_bytes)}
    found: list[Msg] = []
    try:
        await client.publish(f"$JS.API.DIRECT.GET.{stream}", json.dumps(request).encode(), reply=inbox)
        while len(found) < most:
            msg = await answers.next_msg(_MESSAGE_SECONDS)
            status = _status(msg)
            if status == _END_OF_BATCH or (status == _NO_MESSAGE and not found):
                break
            _check(msg)
            found.append(msg)
            if "Nats-Num-Pending" not in (msg.headers or {}):  # a server without batches
                break
    finally:
        await answers.unsubscribe()
    return found


def _check(msg: Msg) -> None:
    if _status(msg):
        described = (msg.headers or {}).get("Description", "")
        raise FeedError(f"the stream allows no direct gets: {_status(msg)} {described}".rstrip())


def _status(msg: Msg) -> str:
    return (msg.headers or {}).get("Status", "")


def _seq(msg: Msg) -> int:
    return int((msg.headers or {})["Nats-Sequence"])


def _ts_ms(msg: Msg) -> int:
    return int(datetime.fromisoformat((msg.headers or {})["Nats-Time-Stamp"]).timestamp() * 1000)
