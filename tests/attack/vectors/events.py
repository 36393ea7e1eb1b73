"""The same harm by Server-Sent Events, whose commands are requests."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tests.attack.attacker import Attacker, Line, TurnedAwayError
from tests.attack.stages import KEYS, SMALL
from tests.attack.vectors.base import Vector, channels, lines

_HISTORY = [f"token.h{number}" for number in range(400)]  # see scene: all of them have old messages
_ID = re.compile(rb"(?m)^id: ?(.+):[0-9]+\r?\n")


def request(names: Sequence[str], *fields: str, more: str = "") -> bytes:
    """A request of an EventSource, perhaps with more in its query."""
    query = "&".join(f"channel={name}" for name in names) + more
    return lines(f"GET /sse?{query} HTTP/1.1", "Host: x", "Accept: text/event-stream", *fields)


async def opened(attacker: Attacker, data: bytes, *, unread: bool = False) -> Line:
    """A stream that has begun. Raises TurnedAwayError when none does."""
    line = await attacker.connect(unread=unread)
    try:
        await line.send(data)
        status, _ = await line.head()
        if status != 200:
            raise TurnedAwayError
    except BaseException:
        line.close()
        raise
    attacker.upgraded += 1
    return line


async def unread_feed(attacker: Attacker) -> Line:
    return await opened(attacker, request(["token.*", "global"]), unread=True)


async def distinct_channels(attacker: Attacker) -> Line:
    return await opened(attacker, request(channels(attacker.dice.randrange(1 << 32), 900)))


async def resumed(attacker: Attacker, names: Sequence[str], *, unread: bool = False) -> Line:
    """A stream since the first message; the epoch is asked for before."""
    first = await opened(attacker, request(["global"]))
    data = b""
    while (found := _ID.search(data)) is None:
        data += await first.read()
    first.close()
    return await opened(attacker, request(names, f"Last-Event-ID: {found[1].decode()}:1"), unread=unread)


async def resumes(attacker: Attacker) -> Line:
    line = await resumed(attacker, _HISTORY)
    await line.drain()
    return line


async def unread_resumes(attacker: Attacker) -> Line:
    return await resumed(attacker, ["token.*"], unread=True)


async def storm(attacker: Attacker) -> None:
    line = await opened(attacker, request(["global"]))
    line.reset()


async def idle_connection(attacker: Attacker) -> Line:
    return await opened(attacker, request(["global"]))


async def talking(attacker: Attacker) -> Line:
    """Who has nothing to say, and says it for ever."""
    line = await opened(attacker, request(["global"]))
    while True:
        await line.send(b"x" * 4000)


async def refused_tokens(attacker: Attacker) -> None:
    line = await attacker.connect()
    try:
        await line.send(request(["global"], more="&token=a.b.c"))
        await line.head()
    finally:
        line.close()


VECTORS = (
    Vector(
        "sse-unread-feed",
        "all channels, unread, sse",
        "the outbox of a connection",
        unread_feed,
        lanes=25,
        quick=True,
    ),
    Vector(
        "sse-distinct-channels",
        "900 channels that nobody else has, sse",
        "bytes of subscriptions of a connection, an address, the worker",
        distinct_channels,
        lanes=50,
    ),
    Vector(
        "sse-resumes",
        "400 channels since their first message, sse",
        "history is charged like a replay",
        resumes,
        lanes=3,
        quick=True,
    ),
    Vector(
        "sse-unread-resumes",
        "all since the first message, unread, sse",
        "one page at a time",
        unread_resumes,
        lanes=25,
    ),
    Vector("sse-storm", "streams, and a reset, sse", "WS_UPGRADE_RATE", storm, lanes=20),
    Vector("sse-talking", "bytes on a stream that takes none, sse", "what a reader may send", talking),
    Vector(
        "sse-slots",
        "as many streams as can be had, from one address, sse",
        "WS_MAX_PER_ADDRESS",
        idle_connection,
        lanes=400,
        attackers=1,
        stage=SMALL,
    ),
    Vector(
        "sse-refused-tokens",
        "streams with tokens that are none, sse",
        "WS_UPGRADE_RATE, a rate for each kind of log line",
        refused_tokens,
        stage=KEYS,
    ),
)
