"""Event streams over plain HTTP: Server-Sent Events, and the same as lines of JSON. Pure.

The client has said all it has to say in its request. It gets its messages in the order of the stream, over
all its channels, so that one position tells what it has: it has everything up to there. A block of the
stream moves the position only if nothing before it is still to come. So messages do, and gaps don't: a
client that comes back in between is told of a gap again.

Source of the format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, Never

import msgspec

from odinws.close_codes import CloseReason
from odinws.messages.json_format import encode_gap, envelope
from odinws.messages.protocol import At, Message, Outgoing, Position, StreamWelcome
from odinws.messages.wire_format import WireFormat


class _Closing(msgspec.Struct, frozen=True, tag_field="type", tag="closing", omit_defaults=True):
    code: int
    reason: str
    retry_after_seconds: float | None = None


_encode = msgspec.json.Encoder().encode


class EventFormat(WireFormat):
    """The base of formats for clients that only listen.

    Args:
        epoch: of the sequences that are encoded now.
    """

    in_stream_order: ClassVar[bool] = True

    def __init__(self, epoch: Callable[[], str]) -> None:
        self._epoch = epoch

    @abstractmethod
    def block(self, text: bytes, kind: str = "", position: Position | None = None) -> bytes:
        """Encode one event.

        Args:
            text: JSON without line ends.
            kind: of what is no message.
            position: where the client is when it has this.
        """

    @abstractmethod
    def retry(self, seconds: float) -> bytes:
        """Encode how long the client is to wait before it comes back; `b""`: it can't be said."""

    def message(self, message: Message, via: str) -> bytes:
        """The native text, without line ends: JSON has them only between its parts."""
        text = envelope(message)
        if b"\n" in text or b"\r" in text:
            text = text.translate(None, b"\r\n")
        return self.block(text, "", Position(self._epoch(), message.seq))

    def gap(self, channel: str, first: int, last: int, reason: str, via: str) -> bytes:
        """Moves no position: of another channel something from before `last` may still be to come."""
        return self.block(encode_gap(channel, first, last, reason), "gap")

    def encode(self, value: Outgoing, tag: object = None) -> bytes:
        """Only what an event stream has."""
        if not isinstance(value, StreamWelcome | At):
            return b""
        kind = "welcome" if isinstance(value, StreamWelcome) else "position"
        position = Position.parse(value.position) if value.position else None
        return self.block(_encode(value), kind, position)

    def close(self, reason: CloseReason, text: str, retry_after_seconds: float | None = None) -> bytes:
        """The last event: why this ends, and when to come back."""
        seconds = reason.retry_after_seconds if retry_after_seconds is None else retry_after_seconds
        retry = b"" if seconds is None else self.retry(seconds)
        if seconds is not None:
            seconds = round(seconds, 1)
        return retry + self.block(_encode(_Closing(reason.code, text, seconds)), "closing")

    def pong(self, payload: bytes) -> bytes:
        """Nothing: nobody pings."""
        return b""

    def close_answer(self, payload: bytes) -> bytes:
        """Nothing: nobody says that it closes."""
        return b""

    def reader(self, max_bytes: int) -> Never:
        """What a client sends behind its request is not read."""
        raise NotImplementedError

    def decode(self, payload: bytes) -> Never:
        """As `reader`."""
        raise NotImplementedError


class ServerSentEvents(EventFormat):
    """Blocks of an EventSource. Messages have no name, so that `onmessage` gets them; all else has one."""

    kind = ("sse", "sse")

    def block(self, text: bytes, kind: str = "", position: Position | None = None) -> bytes:
        """One block."""
        event = f"event: {kind}\n" if kind else ""
        at = f"id: {position}\n" if position else ""
        return b"%b%bdata: %b\n\n" % (event.encode(), at.encode(), text)

    def retry(self, seconds: float) -> bytes:
        """A line, which needs a block around it."""
        return b"retry: %d\n" % (1000 * seconds)

    def ping(self, payload: bytes) -> bytes:
        """A comment, so that proxies see life."""
        return b":\n\n"


class JsonLines(EventFormat):
    """One JSON object a line. A message's position is the epoch of the last welcome, `:`, and its `seq`."""

    kind = ("ndjson", "stream")

    def block(self, text: bytes, kind: str = "", position: Position | None = None) -> bytes:
        """One line."""
        return text + b"\n"

    def retry(self, seconds: float) -> bytes:
        """Nothing: `closing` says it."""
        return b""

    def ping(self, payload: bytes) -> bytes:
        """An empty line."""
        return b"\n"
