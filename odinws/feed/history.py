"""What the stream still has of a channel: read by direct gets, a page at a time (NATS ADR-31).

A direct get is one request without a consumer, so nothing is left behind when a client goes. Servers
before 2.11 answer with one message instead of a batch: then each is asked for by itself.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg

from odinws.errors import FeedError
from odinws.feed.events import Message

_NO_MESSAGE = "404"
_END_OF_BATCH = "204"
_MESSAGE_SECONDS = 5.0


class Page(NamedTuple):
    """Some of the past.

    Attributes:
        messages: of the channels asked for, in order; `prev` is that of this page. For the first of a channel
            it is `after`, or the last sequence that is gone: nothing of the channel lies between.
        first_seq: the oldest sequence that the stream still has, of any channel.
        upto: everything of the channels up to here is in `messages`, or is gone.
        last_seq: the latest sequence of the stream, of any channel.
    """

    messages: list[Message]
    first_seq: int
    upto: int
    last_seq: int


async def page(
    client: Client, stream: str, prefix: str, channel: str, after: int, most: int, max_bytes: int
) -> Page:
    """Read the messages of a channel behind a sequence.

    Args:
        channel: a channel, or `token.*`.
        after: sequence.
        most: messages at most; max_bytes: of their payloads, about.

    Raises:
        FeedError: the stream allows no direct gets, or is not there.
        nats.errors.Error, TimeoutError: NATS is lost.
    """
    state = (await client.jetstream().stream_info(stream)).state
    start = max(after + 1, state.first_seq, 1)
    messages: list[Message] = []
    if start > state.last_seq:
        return Page(messages, state.first_seq, max(after, state.last_seq), state.last_seq)
    last: dict[str, int] = {}
    size, upto = 0, start - 1
    while upto < state.last_seq and len(messages) < most and size < max_bytes:
        found = await _batch(
            client, stream, prefix + channel, upto + 1, most - len(messages), max_bytes - size
        )
        if not found:
            upto = state.last_seq
            break
        for msg in found:
            seq, name = _seq(msg), (msg.headers or {})["Nats-Subject"].removeprefix(prefix)
            if seq > state.last_seq:
                return Page(messages, state.first_seq, state.last_seq, state.last_seq)
            messages.append(Message(name, seq, last.get(name, start - 1), _ts_ms(msg), msg.data))
            last[name] = upto = seq
            size += len(msg.data)
    return Page(messages, state.first_seq, upto, state.last_seq)


async def latest(client: Client, stream: str, prefix: str, channel: str) -> Message | None:
    """The newest message of a channel that the stream has; None: it has none."""
    request = json.dumps({"last_by_subj": prefix + channel})
    msg = await client.request(f"$JS.API.DIRECT.GET.{stream}", request.encode(), timeout=_MESSAGE_SECONDS)
    if _status(msg) == _NO_MESSAGE:
        return None
    _check(msg)
    return Message(channel, _seq(msg), 0, _ts_ms(msg), msg.data)


async def _batch(
    client: Client, stream: str, subject: str, start: int, most: int, max_bytes: int
) -> list[Msg]:
    """Messages from `start` on; empty: there are none."""
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
            if "Nats-Num-Pending" not in (msg.headers or {}):  # a server that knows no batches
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
