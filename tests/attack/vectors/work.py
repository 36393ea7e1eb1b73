"""What makes a server work for a client that is in."""

from __future__ import annotations

import jwt

from tests import wire
from tests.access.material import ec_key
from tests.attack.attacker import Attacker, Line
from tests.attack.stages import KEYS, TLS
from tests.attack.vectors.base import Move, Vector, channels, command, deflated, padded_heartbeat

_FLOOD = 200  # frames that are sent at once
_PING = wire.frame(wire.PING) * _FLOOD
_PONG = wire.frame(wire.PONG, b"12345678") * _FLOOD
_HEARTBEAT = wire.command("heartbeat") * _FLOOD
_NOTHING = wire.frame(wire.TEXT, b"{") * _FLOOD
_BOMB = padded_heartbeat(65536) * 20
_HISTORY = [f"token.h{number}" for number in range(1000)]  # see stage: all of them have old messages
_FORGED = jwt.encode({"sub": "x" * 200, "exp": 1 << 33}, ec_key("nobody's"), "ES256")


def flood(data: bytes, *, record_bytes: int = 16 << 10) -> Move:
    """A move that sends the same for ever, and reads nothing that comes; over TLS in records of a size."""

    async def move(attacker: Attacker) -> Line:
        line = await attacker.upgrade()
        line.record_bytes = record_bytes
        while True:
            await line.send(data)

    return move


async def since(attacker: Attacker) -> Line:
    line = await attacker.upgrade()
    await line.send(command("subscribe", channels=_HISTORY, since=dict.fromkeys(_HISTORY, 1)))
    await line.drain()
    return line


async def last(attacker: Attacker) -> Line:
    line = await attacker.upgrade()
    await line.send(command("subscribe", channels=_HISTORY, last=True))
    await line.drain()
    return line


async def last_again(attacker: Attacker) -> Line:
    """Leave and come back to the same channels, which is no new subscription to the client's account."""
    line = await attacker.upgrade()
    for _ in range(100):
        await line.send(
            command("subscribe", channels=_HISTORY[:200], last=True),
            command("unsubscribe", channels=_HISTORY[:200]),
        )
    await line.drain()
    return line


async def replays(attacker: Attacker) -> Line:
    line = await attacker.upgrade()
    for number in range(1000):
        await line.send(wire.command("replay", channel=_HISTORY[number], since=0))
        await line.answer(b'"replay_', b'"error"')
    return line


async def wildcards(attacker: Attacker) -> Line:
    line = await attacker.upgrade()
    await line.send(command("subscribe", channels=["token.*", "user.*"], since={"token.*": 1, "user.*": 1}))
    await line.drain()
    return line


async def churn(attacker: Attacker) -> Line:
    line = await attacker.upgrade()
    first = attacker.dice.randrange(1 << 32)
    for number in range(0, 100_000, 500):
        names = channels(first + number, 500)
        await line.send(command("subscribe", channels=names), command("unsubscribe", channels=names))
    return line


async def wide_since(attacker: Attacker) -> Line:
    line = await attacker.upgrade()
    missed = {f"token.{number:x}": number for number in range(3500)}
    for _ in range(10):
        await line.send(command("subscribe", channels=["token.0"], since=missed))
    await line.drain()
    return line


def authenticate(token: str) -> Move:
    """A move that authenticates for ever with a token that is not good."""
    return flood(wire.command("authenticate", token=token) * max(1, 5000 // len(token)))


VECTORS = (
    Vector("pings", "pings without a pause", "rate of control frames", flood(_PING), quick=True),
    Vector("pings-tls", "pings without a pause, over TLS", "rate of control frames", flood(_PING), stage=TLS),
    Vector(
        "spread-pings",
        "pings, spread over hundreds of connections",
        "WS_CLIENT_WORK",
        flood(_PING[: len(_PING) // 8]),
        lanes=150,
    ),
    Vector(
        "tiny-records",
        "heartbeats over TLS, each byte in a record",
        "what is read of a connection in one turn",
        flood(_HEARTBEAT, record_bytes=1),
        stage=TLS,
    ),
    Vector("pongs", "pongs that nobody asked for", "rate of control frames", flood(_PONG)),
    Vector("heartbeats", "heartbeats without a pause", "WS_COMMAND_RATE, WS_MAX_ERRORS", flood(_HEARTBEAT)),
    Vector("bad-commands", "one brace for a command", "WS_MAX_ERRORS", flood(_NOTHING)),
    Vector(
        "deflate-bombs",
        "heartbeats that are inflated to 64 KiB each",
        "rate of inflated bytes",
        flood(_BOMB),
        quick=True,
    ),
    Vector(
        "since",
        "1,000 channels since their first message",
        "history is charged like a replay",
        since,
        lanes=3,
        quick=True,
    ),
    Vector(
        "last",
        "1,000 channels from their newest message on",
        "history is charged like a replay",
        last,
        lanes=3,
        quick=True,
    ),
    Vector(
        "last-again",
        "200 channels from their newest message on, over and over",
        "rate of opened channels",
        last_again,
        lanes=3,
    ),
    Vector("replays", "replays, one after the other", "WS_REPLAY_RATE", replays),
    Vector(
        "crowded-replays",
        "everything since the first message, on 300 connections of one address",
        "turns: whose address has had least is read for first",
        wildcards,
        lanes=300,
        attackers=1,
        least=250,
    ),
    Vector(
        "wildcards", "wildcards since the first message", "pages of the stream of a connection", wildcards
    ),
    Vector("churn", "500 new channels, and away with them, over and over", "rate of opened channels", churn),
    Vector(
        "nested",
        "commands of 64 kB of brackets",
        "WS_MAX_ERRORS",
        flood(deflated(b"[" * 65_000) * 10),
    ),
    Vector(
        "wide-since",
        "a subscription to one channel, since 3,500 others",
        "rate of inflated bytes",
        wide_since,
    ),
    Vector(
        "garbage-tokens", "authenticate, with garbage", "WS_MAX_ERRORS", authenticate("a.b.c"), stage=KEYS
    ),
    Vector(
        "forged-tokens", "authenticate, signed by another", "WS_MAX_ERRORS", authenticate(_FORGED), stage=KEYS
    ),
    Vector(
        "huge-tokens",
        "authenticate, with 60 kB",
        "MAX_TOKEN_CHARACTERS, WS_MAX_ERRORS",
        authenticate("x" * 60_000),
        stage=KEYS,
    ),
)
