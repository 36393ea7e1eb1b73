"""An EventSource after the letter of its standard, as an oracle of what a stream does to a client.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlencode

from tests.wire import DEFAULT_SECONDS, Http, Peer

_LINE_END = re.compile("\r\n|\n|\r")


class Event(NamedTuple):
    """An event that is dispatched.

    Attributes:
        kind: `message` unless the block names another.
        last_id: the last event id of the client when it is dispatched.
    """

    kind: str
    data: str
    last_id: str


class EventSource:
    """Interprets a stream. An incomplete last line, and so an incomplete last block, does nothing.

    Attributes:
        last_id: what a client would send as `Last-Event-ID`.
        retry_ms: how long it would wait; None: it was not told.
        comments: how many there were.
    """

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        self.retry_ms: int | None = None
        self.comments = 0
        self._bytes = b""
        self._is_first = True
        self._data: list[str] = []
        self._kind = ""
        self._id = last_id

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete."""
        self._bytes += data
        # A CR at the end may be half a line end, and a last line may go on: both wait.
        whole = max(self._bytes.rfind(b"\n"), self._bytes[:-1].rfind(b"\r")) + 1
        text, self._bytes = self._bytes[:whole].decode("utf-8", "replace"), self._bytes[whole:]
        if text and self._is_first:
            self._is_first = False
            text = text.removeprefix("\ufeff")
        lines = _LINE_END.split(text)
        assert lines.pop() == ""
        return [event for line in lines for event in self._line(line)]

    def _line(self, line: str) -> Iterator[Event]:
        if not line:
            yield from self._dispatch()
            return
        if line.startswith(":"):
            self.comments += 1
            return
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._kind = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and re.fullmatch("[0-9]+", value):
            self.retry_ms = int(value)

    def _dispatch(self) -> Iterator[Event]:
        self.last_id = self._id
        if self._data:
            yield Event(self._kind or "message", "\n".join(self._data), self.last_id)
        self._data, self._kind = [], ""


def asked(
    channels: Sequence[str],
    path: str = "/sse",
    query: Mapping[str, str] = MappingProxyType({}),
    **headers: str,
) -> bytes:
    """A request for an event stream; `_` in the name of a header stands for `-`."""
    fields = urlencode([*(("channel", name) for name in channels), *query.items()])
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in {"Host": "test", **headers}.items()]
    return "\r\n".join([f"GET {path}?{fields} HTTP/1.1", *lines, "", ""]).encode()


class Stream:
    """One connection to an event stream.

    Attributes:
        answer: the head of the answer.
        client: what the stream has done to an EventSource.
        has_ended: whether the server has ended it.
    """

    def __init__(self, port: int, request: bytes, last_id: str = "") -> None:
        self.peer = Peer(port)
        self.answer: Http = self.peer.send(request).http()
        self.client = EventSource(last_id)
        self.has_ended = False
        self._waiting = self.client.feed(self.peer.rest) if self.answer.status == 200 else []

    def next(self, seconds: float = DEFAULT_SECONDS) -> Event | None:
        """The next event; None at the end. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while not self._waiting:
            self.peer.sock.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self.peer.sock.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                self.has_ended = True
                return None
            self._waiting = self.client.feed(data)
        return self._waiting.pop(0)

    def json(self, kind: str = "message", seconds: float = DEFAULT_SECONDS) -> Any:
        """What the next event of a kind says; others before it are passed by."""
        deadline = time.monotonic() + seconds
        while True:
            event = self.next(deadline - time.monotonic())
            assert event is not None, f"ended before a {kind}"
            if event.kind == kind:
                return json.loads(event.data)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.peer.shut()


class Follower:
    """One client through all its connections: it comes back where it was, and keeps everything it got.

    Attributes:
        last_id: its position.
        got: (channel, seq) of all messages, in the order they came.
        gaps: (channel, from, to, reason), in order.
        connects: answers of 200.
        closings: what the server said at the end of streams.
    """

    def __init__(self, channels: Sequence[str], last_id: str = "") -> None:
        self.channels = channels
        self.last_id = last_id
        self.got: list[tuple[str, int]] = []
        self.gaps: list[tuple[str, int, int, str]] = []
        self.connects = 0
        self.closings: list[Any] = []

    def visit(self, port: int, until: Callable[[], bool]) -> None:
        """Connect, go on, and read until `until`, or the server ends it."""
        with Stream(port, asked(self.channels, Last_Event_ID=self.last_id), self.last_id) as stream:
            assert stream.answer.status == 200, stream.answer
            self.connects += 1
            while not until():
                try:
                    event = stream.next(0.05)
                except TimeoutError:
                    continue
                if event is None:
                    return
                self._take(event)

    def _take(self, event: Event) -> None:
        self.last_id = event.last_id
        told = json.loads(event.data)
        if event.kind == "message":
            self.got.append((told["channel"], told["seq"]))
        elif event.kind == "gap":
            self.gaps.append((told["channel"], told["from"], told["to"], told["reason"]))
        elif event.kind == "closing":
            self.closings.append(told)
