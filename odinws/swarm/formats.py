"""What clients of each wire format say, and what the server's bytes mean to them. No input or output.

`native` is JSON as in docs/protocol.md, `centrifugo` and `protobuf` are Centrifugo's client protocol, and
`sse` is Server-Sent Events.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple
from urllib.parse import quote

from odinws.swarm import frames
from odinws.swarm.frames import BINARY, CLOSE, PING, PONG, TEXT, WireError

Since = Mapping[str, int]  # what was heard last of channels


class Message(NamedTuple):
    """A data message.

    Attributes:
        prev: the sequence before it on its channel; -1: the format does not say.
        at_ms: when NATS took it, ms since 1970; -1: the format does not say.
    """

    channel: str
    seq: int
    prev: int
    at_ms: int


class Gap(NamedTuple):
    channel: str
    last: int  # so far nothing more will come
    reason: str


class Answer(NamedTuple):
    """Bytes that are due to the server."""

    data: bytes


class Close(NamedTuple):
    code: int
    text: str


class Welcome(NamedTuple):
    """The server knows the client; "": the epoch comes with each subscription."""

    epoch: str


class Subscribed(NamedTuple):
    """An answer to what subscribes.

    Attributes:
        number: of the channel, in the order of asking; -1: of all.
        rejected: the code; "": it is granted.
        lost_to: so far what was missed won't come; -1: it all comes, or none was missed.
    """

    number: int
    rejected: str = ""
    epoch: str = ""
    lost_to: int = -1


class Dropped(NamedTuple):
    """A subscription that the server has ended, to be asked for anew."""

    channel: str


class Failure(NamedTuple):
    code: str


Heard = Message | Gap | Answer | Close | Welcome | Subscribed | Dropped | Failure


class Format(ABC):
    """How a client speaks. Of WebSockets, unless a format says otherwise.

    Attributes:
        path: of its endpoint, below that of the server.
        status: of an answer that lets it in.
        answers_each: whether each channel has an answer of its own.
        goodbye: what says that it leaves; b"": it just goes.
        headers: of its request, lines with their ends.
        kind: of the frames of messages, TEXT or BINARY.
    """

    path: ClassVar[str] = "/ws"
    status: ClassVar[int] = 101
    answers_each: ClassVar[bool] = False
    goodbye: ClassVar[bytes] = frames.frame(CLOSE, b"\x03\xe8")
    headers: ClassVar[str] = ""
    kind: ClassVar[int] = TEXT

    def request(
        self, host: str, base: str, channels: Sequence[str], last_id: str, *, compression: bool
    ) -> bytes:
        """What opens a connection.

        Args:
            last_id: epoch and sequence of what was heard last, with a colon; "": nothing was.
        """
        return frames.upgrade(host, base + self.path, compression=compression, headers=self.headers)

    def hello(self) -> bytes:
        """What is said before the server has said anything."""
        return b""

    @abstractmethod
    def subscribe(
        self, channels: Sequence[str], since: Mapping[str, int], epoch: str, number: int = 0
    ) -> bytes:
        """What asks for channels.

        Args:
            number: of the first, see `Subscribed`.
        """

    def read(self, data: bytes) -> tuple[list[Heard], bytes]:
        """What whole pieces mean, and what is left. Raises WireError, ValueError or LookupError."""
        found, rest = frames.scan(data, self.kind)
        return [heard for first, payload in found for heard in self._heard(first, payload)], rest

    def _heard(self, first: int, payload: bytes) -> Iterable[Heard]:
        if first == PING:
            return [Answer(frames.frame(PONG, payload))]
        if first == CLOSE:
            return [Close(int.from_bytes(payload[:2], "big") or 1005, payload[2:].decode(errors="replace"))]
        return () if first == PONG else self.message(payload)

    def answer_close(self, code: int) -> bytes:
        """What answers the server's end."""
        return self.goodbye and frames.frame(CLOSE, b"" if code == 1005 else code.to_bytes(2, "big"))

    @abstractmethod
    def message(self, payload: bytes) -> Iterator[Heard]:
        """What a message of the server means."""


class Native(Format):
    def subscribe(
        self, channels: Sequence[str], since: Mapping[str, int], epoch: str, number: int = 0
    ) -> bytes:
        return frames.subscribe(channels, dict(since), epoch)

    def message(self, payload: bytes) -> Iterator[Heard]:
        if match := frames.data_of(payload):
            yield Message(match[1].decode(), int(match[2]), int(match[3]), int(match[4]))
            return
        message = json.loads(payload)
        match message["type"]:
            case "gap":
                yield Gap(message["channel"], message["to"], message["reason"])
            case "welcome":
                yield Welcome(message["epoch"])
            case "subscription_ack":
                rejected = message["rejected"]
                yield Subscribed(-1, rejected[0]["code"] if rejected else "")
            case "error":
                yield Failure(message["code"])


class Centrifugo(Format):
    """JSON. The first command connects; that for channel n (from 0) has the id n + 2."""

    path = "/connection/websocket"
    answers_each = True

    def hello(self) -> bytes:
        return self.commands([{"id": 1, "connect": {}}])

    def subscribe(
        self, channels: Sequence[str], since: Mapping[str, int], epoch: str, number: int = 0
    ) -> bytes:
        return self.commands(
            [
                {"id": at, "subscribe": {"channel": name, "flag": 1, **_position(since.get(name), epoch)}}
                for at, name in enumerate(channels, number + 2)
            ]
        )

    def commands(self, values: Sequence[Mapping[str, Any]]) -> bytes:
        """One frame of commands."""
        return frames.frame(self.kind, b"\n".join(json.dumps(value).encode() for value in values))

    def message(self, payload: bytes) -> Iterator[Heard]:
        for line in payload.split(b"\n"):
            yield from self.reply(json.loads(line))

    def reply(self, value: Mapping[str, Any]) -> Iterator[Heard]:
        """What one reply means, in the form of JSON."""
        if "push" in value:
            yield from _pushed(value["push"])
        elif "id" not in value:
            yield Answer(self.pong())
        elif value["id"] == 1:
            yield Welcome("") if "connect" in value else Failure(str(value["error"]["code"]))
        elif "error" in value:
            yield Subscribed(value["id"] - 2, str(value["error"]["code"]))
        elif "subscribe" in value:
            result = value["subscribe"]
            is_lost = result.get("was_recovering") and not result.get("recovered")
            at = result.get("offset", 0) if is_lost else -1
            yield Subscribed(value["id"] - 2, "", result.get("epoch", ""), at)

    def pong(self) -> bytes:
        """The answer to a ping."""
        return frames.frame(TEXT, b"{}")


def _position(seq: int | None, epoch: str) -> Mapping[str, Any]:
    return {} if seq is None else {"recover": True, "offset": seq, "epoch": epoch}


def _pushed(push: Mapping[str, Any]) -> Iterator[Heard]:
    if "pub" in push:
        pub = push["pub"]
        yield Message(pub.get("tags", {}).get("channel", push["channel"]), pub["offset"], -1, -1)
    elif "unsubscribe" in push:
        yield Dropped(push["channel"])


class Protobuf(Centrifugo):
    """The same in Protobuf, with as much of it as a subscriber needs."""

    headers = "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n"
    kind = BINARY

    def commands(self, values: Sequence[Mapping[str, Any]]) -> bytes:
        packed = [_packed(value, _COMMAND) for value in values]
        return frames.frame(BINARY, b"".join(_varint(len(each)) + each for each in packed))

    def message(self, payload: bytes) -> Iterator[Heard]:
        at = 0
        while at < len(payload):
            size, at = _number(payload, at)
            yield from self.reply(_unpacked(payload[at : at + size], _REPLY))
            at += size

    def pong(self) -> bytes:
        return frames.frame(BINARY, b"\0")


# Fields by their number in Protobuf: name, and type or the fields of a message.
_Fields = Mapping[int, tuple[str, Any]]
_COMMAND: _Fields = {
    1: ("id", int),
    4: ("connect", {}),
    5: (
        "subscribe",
        {1: ("channel", str), 3: ("recover", int), 6: ("epoch", str), 7: ("offset", int), 14: ("flag", int)},
    ),
}
_REPLY: _Fields = {
    1: ("id", int),
    2: ("error", {1: ("code", int)}),
    4: (
        "push",
        {
            2: ("channel", str),
            4: ("pub", {6: ("offset", int), 7: ("tags", {1: ("key", str), 2: ("value", str)})}),
            7: ("unsubscribe", {2: ("code", int)}),
        },
    ),
    5: ("connect", {}),
    6: (
        "subscribe",
        {6: ("epoch", str), 8: ("recovered", int), 9: ("offset", int), 12: ("was_recovering", int)},
    ),
}


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(0x80 | number & 0x7F)
        number >>= 7
    return bytes((*out, number))


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A varint, and where it ends. Raises WireError: it does not."""
    number = shift = 0
    while at < len(data):
        number |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return number, at
    raise WireError("a number of Protobuf has no end")


def _packed(value: Mapping[str, Any], fields: _Fields) -> bytes:
    out = b""
    for number, (name, kind) in fields.items():
        if name not in value:
            continue
        if kind is int:
            out += _varint(number << 3) + _varint(int(value[name]))
        else:
            body = value[name].encode() if kind is str else _packed(value[name], kind)
            out += _varint(number << 3 | 2) + _varint(len(body)) + body
    return out


def _unpacked(data: bytes, fields: _Fields) -> dict[str, Any]:
    """What is known of a message, in the form of JSON."""
    found: dict[str, Any] = {}
    at = 0
    while at < len(data):
        tag, at = _number(data, at)
        number, at = _number(data, at)
        name, kind = fields.get(tag >> 3, ("", None))
        if tag & 7 == 2:
            body, at = data[at : at + number], at + number
            if kind is str:
                found[name] = body.decode()
            elif kind is not None:
                found[name] = _unpacked(body, kind)
        elif kind is not None:
            found[name] = number
    if "tags" in found:  # one entry of a map
        found["tags"] = {found["tags"]["key"]: found["tags"]["value"]}
    return found


class EventStream(Native):
    """Server-Sent Events: the request says it all."""

    path = "/sse"
    status = 200
    goodbye = b""

    def request(
        self, host: str, base: str, channels: Sequence[str], last_id: str, *, compression: bool
    ) -> bytes:
        query = "&".join(f"channel={quote(name)}" for name in channels)
        last = f"Last-Event-ID: {last_id}\r\n" if last_id else ""
        return f"GET {base}{self.path}?{query} HTTP/1.1\r\nHost: {host}\r\n{last}\r\n".encode()

    def subscribe(
        self, channels: Sequence[str], since: Mapping[str, int], epoch: str, number: int = 0
    ) -> bytes:
        return b""

    def read(self, data: bytes) -> tuple[list[Heard], bytes]:
        *events, rest = data.split(b"\n\n")
        return [heard for event in events for heard in self._event(event)], rest

    def _event(self, event: bytes) -> Iterator[Heard]:
        kind, text = b"", b""
        for line in event.split(b"\n"):
            name, _, value = line.partition(b": ")
            if name == b"event":
                kind = value
            elif name == b"data":
                text = value
        if kind == b"welcome":
            welcome = json.loads(text)
            yield Welcome(welcome["epoch"])
            yield Subscribed(-1, welcome["rejected"][0]["code"] if welcome["rejected"] else "")
        elif kind == b"closing":
            closing = json.loads(text)
            yield Close(closing["code"], closing["reason"])
        elif text:
            yield from self.message(text)


FORMATS: Mapping[str, Format] = {
    "native": Native(),
    "centrifugo": Centrifugo(),
    "protobuf": Protobuf(),
    "sse": EventStream(),
}
