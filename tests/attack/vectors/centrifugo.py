"""The same harm by Centrifugo's protocol, in both of its formats."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tests import wire
from tests.attack.attacker import Attacker, Line
from tests.attack.stages import KEYS, PLAIN, Stage
from tests.attack.vectors.base import Move, Vector, channels, deflated
from tests.sdks import wire as protocol

_PATH = "/connection/websocket"
_FLOOD = 200  # frames that are sent at once
_HISTORY = [f"token.h{number}" for number in range(1000)]  # see scene: all of them have old messages


class Speech(NamedTuple):
    """A format: JSON or Protobuf."""

    name: str
    protobuf: bool

    def frame(self, *commands: Mapping[str, Any], first: int = 1) -> bytes:
        """Commands in one frame, compressed; numbered from `first`, 0: without numbers."""
        numbered = [{"id": first + at, **each} if first else each for at, each in enumerate(commands)]
        if self.protobuf:
            return deflated(protocol.join([protocol.pack(each) for each in numbered]), wire.BINARY)
        return deflated("\n".join(map(json.dumps, numbered)).encode())

    @property
    def pong(self) -> bytes:
        """An answer to a ping."""
        return wire.frame(wire.BINARY, b"\0") if self.protobuf else wire.frame(wire.TEXT, b"{}")

    async def open(self, attacker: Attacker, *, unread: bool = False) -> Line:
        """A connection that has sent `connect`."""
        headers = ["Sec-WebSocket-Protocol: centrifuge-protobuf"] if self.protobuf else []
        line = await attacker.upgrade(unread=unread, path=_PATH, headers=headers)
        await line.send(self.frame({"connect": {}}))
        return line


def _subscribes(names: Sequence[str], **more: Any) -> list[Mapping[str, Any]]:
    return [{"subscribe": {"channel": name, **more}} for name in names]


def distinct_channels(speech: Speech) -> Move:
    """1,000 channels that nobody else has, in one frame."""

    async def move(attacker: Attacker) -> Line:
        line = await speech.open(attacker)
        names = channels(attacker.dice.randrange(1 << 32), 1000)
        await line.send(speech.frame(*_subscribes(names), first=2))
        return line

    return move


def unread_feed(speech: Speech) -> Move:
    """Everything, and nothing is read."""

    async def move(attacker: Attacker) -> Line:
        line = await speech.open(attacker, unread=True)
        await line.send(speech.frame(*_subscribes(["token.*", *channels(0, 900)]), first=2))
        return line

    return move


def rejected(speech: Speech) -> Move:
    """Channels that there are not; the answers are not read."""

    async def move(attacker: Attacker) -> Line:
        line = await speech.open(attacker, unread=True)
        bad = [f"no such channel {number}" for number in range(2000)]
        await line.send(speech.frame(*_subscribes(bad), first=2))
        return line

    return move


def recoveries(speech: Speech) -> Move:
    """1,000 channels since their first message."""

    async def move(attacker: Attacker) -> Line:
        line = await speech.open(attacker)
        await line.send(speech.frame(*_subscribes(_HISTORY, recover=True, offset=1), first=2))
        await line.drain()
        return line

    return move


def churn(speech: Speech) -> Move:
    """New channels, and away with them, over and over."""

    async def move(attacker: Attacker) -> Line:
        line = await speech.open(attacker)
        first = attacker.dice.randrange(1 << 32)
        for number in range(0, 100_000, 250):
            names = channels(first + number, 250)
            leave = [{"unsubscribe": {"channel": name}} for name in names]
            await line.send(speech.frame(*_subscribes(names), *leave, first=2 + 2 * number))
        return line

    return move


def flood(speech: Speech, data: bytes) -> Move:
    """The same for ever; nothing that comes is read."""

    async def move(attacker: Attacker) -> Line:
        line = await speech.open(attacker)
        while True:
            await line.send(data)

    return move


def no_connect(speech: Speech) -> Move:
    """A WebSocket without a command."""

    async def move(attacker: Attacker) -> Line:
        headers = ["Sec-WebSocket-Protocol: centrifuge-protobuf"] if speech.protobuf else []
        return await attacker.upgrade(path=_PATH, headers=headers)

    return move


def _of(speech: Speech) -> list[Vector]:
    def vector(name: str, sends: str, bound: str, move: Move, stage: Stage = PLAIN, **traits: Any) -> Vector:
        return Vector(f"{speech.name}-{name}", f"{sends}, {speech.name}", bound, move, stage=stage, **traits)

    def flooding(*commands: Mapping[str, Any]) -> Move:
        return flood(speech, speech.frame(*commands))

    history = {"history": {"channel": "token.h1", "limit": 300, "since": {"offset": 1, "epoch": ""}}}
    call, forged = {"rpc": {"method": "x"}}, {"refresh": {"token": "a.b.c"}}
    opened = "rate of opened channels"
    return [
        vector(
            "distinct-channels",
            "1,000 channels that nobody else has, in one frame",
            "bytes of subscriptions of a connection, an address, the worker",
            distinct_channels(speech),
            lanes=50,
            quick=True,
        ),
        vector(
            "unread-feed", "all channels, unread", "the outbox of a connection", unread_feed(speech), lanes=25
        ),
        vector(
            "rejected-channels",
            "2,000 channels that are rejected, and their answers unread",
            "bytes of answers: an unread one stops the next command",
            rejected(speech),
        ),
        vector(
            "recoveries",
            "1,000 channels since their first message",
            "history is charged like a replay",
            recoveries(speech),
            lanes=3,
            quick=True,
        ),
        vector("churn", "channels, and away with them, over and over", opened, churn(speech)),
        vector("histories", "history, over and over", "WS_REPLAY_RATE", flooding(*[history] * 20)),
        vector("calls", "calls of what there is not", "WS_MAX_ERRORS", flooding(*[call] * _FLOOD)),
        vector("pongs", "pongs that nobody asked for", "rate of frames", flood(speech, speech.pong * _FLOOD)),
        vector("silence", "no command", "10 s for connect", no_connect(speech), lanes=100),
        vector(
            "forged-tokens",
            "refresh, with garbage",
            "WS_MAX_ERRORS",
            flooding(*[forged] * _FLOOD),
            stage=KEYS,
        ),
    ]


_JSON, _PROTOBUF = Speech("centrifugo", False), Speech("centrifugo-protobuf", True)
_LIES = b"".join(wire.frame(wire.BINARY, size + b"\x08") for size in (b"\xff" * 9 + b"\x01", b"\xff\xff\x03"))
VECTORS = (
    *_of(_JSON),
    *_of(_PROTOBUF),
    Vector(
        "centrifugo-nested",
        "commands of 64 kB of brackets, centrifugo",
        "WS_MAX_ERRORS",
        flood(_JSON, deflated(b'{"id":1,"rpc":{"data":' + b"[" * 65_000) * 10),
    ),
    Vector(
        "centrifugo-protobuf-lengths",
        "lengths of what never comes, centrifugo-protobuf",
        "the length of a frame",
        flood(_PROTOBUF, _LIES * _FLOOD),
    ),
)
