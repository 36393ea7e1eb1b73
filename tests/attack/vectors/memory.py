"""What makes a server hold bytes for a client."""

from __future__ import annotations

from tests import wire
from tests.attack.attacker import Attacker, Line
from tests.attack.stages import ROOMY
from tests.attack.vectors.base import Vector, channels, command, deflated, padded_heartbeat

_MESSAGE_BYTES = 65536  # WS_MAX_MESSAGE_BYTES
_HELD = padded_heartbeat(_MESSAGE_BYTES)
_DISTINCT = 1000  # WS_MAX_SUBSCRIPTIONS


async def blocked_replay(attacker: Attacker) -> Line:
    line = await attacker.upgrade(unread=True)
    await line.send(wire.command("replay", channel="token.*", since=0), _HELD * 75)
    return line


async def distinct_channels(attacker: Attacker) -> Line:
    line = await attacker.upgrade()
    await line.send(command("subscribe", channels=channels(attacker.dice.randrange(1 << 32), _DISTINCT)))
    return line


async def rejected_channels(attacker: Attacker) -> Line:
    line = await attacker.upgrade(unread=True)
    bad = [f"no such channel {number}" for number in range(2 * _DISTINCT)]
    await line.send(command("subscribe", channels=bad) * 3)
    return line


async def unfinished_message(attacker: Attacker) -> Line:
    line = await attacker.upgrade()
    await line.send(wire.frame(wire.TEXT, b"x" * (_MESSAGE_BYTES - 1), final=False))
    return line


async def fragments(attacker: Attacker) -> Line:
    line = await attacker.upgrade()
    rest = wire.frame(wire.CONTINUATION, b"", final=False) * 1022
    await line.send(wire.frame(wire.TEXT, b"{", final=False), rest)
    return line


async def unread_pongs(attacker: Attacker) -> Line:
    line = await attacker.upgrade(unread=True)
    while True:
        await line.send(wire.frame(wire.PING, b"x" * 125) * 100)


async def unread_feed(attacker: Attacker) -> Line:
    line = await attacker.upgrade(unread=True)
    everything = channels(0, 900)
    await line.send(command("subscribe", channels=["token.*", "global", *everything], last=True))
    return line


async def unread_replays(attacker: Attacker) -> Line:
    line = await attacker.upgrade(unread=True)
    for number in range(40):
        await line.send(wire.command("replay", channel=f"token.h{number}", since=0))
    return line


async def echoed_names(attacker: Attacker) -> Line:
    """Each name is short on the wire, and comes back with a code and a message."""
    line = await attacker.upgrade(unread=True)
    await line.send(command("subscribe", channels=["\x01" * 80 + str(number) for number in range(130)]))
    names = ["token." + "x" * 90 + str(number) for number in range(600)]
    await line.send(
        deflated(b'{"type":"unsubscribe","data":{"channels":["' + '","'.join(names).encode() + b'"]}}')
    )
    return line


async def everything(attacker: Attacker) -> Line:
    """All that one connection may hold, at once."""
    line = await attacker.upgrade(unread=True)
    await line.send(
        command("subscribe", channels=channels(attacker.dice.randrange(1 << 40), _DISTINCT)),
        wire.command("replay", channel="token.*", since=0),
        _HELD * 64,
        wire.frame(wire.TEXT, b"x" * (_MESSAGE_BYTES - 1), final=False),
    )
    return line


WORST = Vector(
    "worst",
    "1,000 channels, an unread replay, heartbeats that are inflated behind it, and half a message",
    "WS_CLIENT_MEMORY",
    everything,
    lanes=100,
)
VECTORS = (
    Vector(
        "blocked-replay",
        "an unread replay, and behind it heartbeats that are inflated to 64 KiB each",
        "bytes that wait of a connection; reading pauses",
        blocked_replay,
        quick=True,
    ),
    Vector(
        "many-blocked-replays",
        "the same on as many connections as a megabyte pays for",
        "WS_CLIENT_MEMORY",
        blocked_replay,
        lanes=100,
        ends="memory",
        least=200,
    ),
    Vector(
        "roomy-replays",
        "the same where WS_CLIENT_MEMORY is its default",
        "WS_CLIENT_MEMORY; what slow clients have held goes back to the system",
        blocked_replay,
        lanes=100,
        stage=ROOMY,
        least=200,
    ),
    Vector(
        "distinct-channels",
        "1,000 channels that nobody else has, on each of 50 connections",
        "bytes of subscriptions of a connection, an address, the worker",
        distinct_channels,
        lanes=50,
        quick=True,
    ),
    Vector(
        "rejected-channels",
        "three times 2,000 channels that are rejected, and their answers unread",
        "bytes of answers: an unread one stops the next command",
        rejected_channels,
        quick=True,
    ),
    Vector(
        "echoed-names",
        "names of control characters, which JSON writes six times as long, unread",
        "bytes of answers",
        echoed_names,
    ),
    Vector(
        "unfinished-message",
        "messages of 64 KiB without their last byte",
        "bytes of an address",
        unfinished_message,
        lanes=15,
    ),
    Vector(
        "fragments",
        "1,023 empty fragments, and never the last",
        "fragments of a message",
        fragments,
        lanes=100,
    ),
    Vector(
        "unread-pongs",
        "pings of 125 bytes, and their pongs unread",
        "the outbox; rate of control frames",
        unread_pongs,
    ),
    Vector(
        "unread-feed",
        "all channels, from their newest message on, unread",
        "the outbox of a connection",
        unread_feed,
        lanes=25,
    ),
    Vector(
        "unread-replays",
        "40 replays at once, unread",
        "commands that wait; one page at a time",
        unread_replays,
        lanes=25,
    ),
)
