"""What makes a server work, or hold bytes, for one that is not in yet."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

from tests import wire
from tests.attack.attacker import Attacker, Line
from tests.attack.stages import ACCESS_LOG, KEYS, ORIGINS, TLS
from tests.attack.vectors.base import Move, Vector, lines, named

_LINE = "x" * 65_000
_TOKENS = "-eyJ" * 2000  # what hides tokens in logs looks for
_LOGGED_SECONDS = 0.5  # a log of accesses has a line for each: it is about how long these are
_BEGUN = wire.request()[:-2]
_AGENT = _TOKENS * 7
_ESCAPES = "https://\x1b]0;yours\x07\x1b[31m\x9b2J.example"
_FORGED = "https://x\r\n 2026-01-01T00:00:00Z [error] all is lost"


def client_hello() -> bytes:
    """The first message of a TLS handshake."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    begun = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        begun.do_handshake()
    return outgoing.read()


_HELLO = client_hello()


async def long_head(attacker: Attacker) -> Line:
    line = await attacker.connect()
    await line.send(lines("GET /ws HTTP/1.1", "Host: x", *named("X", [_LINE] * 12))[:-2])
    return line


async def finished_head(attacker: Attacker) -> Line:
    line = await attacker.connect()
    await line.send(lines("GET /livez HTTP/1.1", "Host: x", *named("X", [_LINE] * 12)))
    await line.drain()
    return line


async def many_lines(attacker: Attacker) -> Line:
    line = await attacker.connect()
    await line.send(b"GET /ws HTTP/1.1\r\n", b"a:\r\n" * 60_000)
    return line


async def endless_line(attacker: Attacker) -> Line:
    line = await attacker.connect()
    while True:
        await line.send(b"GET /" + b"a" * 16_000)


async def slow_heads(attacker: Attacker) -> Line:
    line = await attacker.connect()
    await line.send(_BEGUN)
    await line.drip(b"X-Slow: " + b"x" * 1000, 0.5)
    return line


def asking(*data: bytes) -> Move:
    """A move that sends this, reads the answer, and leaves."""

    async def move(attacker: Attacker) -> None:
        line = await attacker.connect()
        try:
            await line.send(*data)
            await line.head()
        finally:
            line.close()

    return move


async def token_queries(attacker: Attacker) -> None:
    line = await attacker.connect()
    try:
        await line.send(lines("GET /nowhere?" + "&token=" * 1000 + " HTTP/1.1", "Host: x"))
        await line.head()
        await asyncio.sleep(_LOGGED_SECONDS)
    finally:
        line.close()


async def storm(attacker: Attacker) -> None:
    line = await attacker.upgrade()
    line.close()


async def resets(attacker: Attacker) -> None:
    line = await attacker.upgrade()
    line.reset()


async def early_resets(attacker: Attacker) -> None:
    line = await attacker.connect()
    await line.send(wire.request())
    line.reset()


async def bodies(attacker: Attacker) -> Line:
    line = await attacker.connect()
    await line.send(b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", b"x" * 50_000)
    return line


def pipelined(path: str, *, unread: bool) -> Move:
    """A move that asks for the same path over and over and waits for nothing."""
    request = lines(f"GET {path} HTTP/1.1", "Host: x") * 50

    async def move(attacker: Attacker) -> Line:
        line = await attacker.connect(unread=unread)
        reading = asyncio.create_task(asyncio.sleep(0) if unread else line.drain())
        try:
            while True:
                await line.send(request)
        finally:
            reading.cancel()

    return move


async def silent_tls(attacker: Attacker) -> Line:
    line = await attacker.connect()
    await line.send(_HELLO[: len(_HELLO) // 2])
    return line


async def handshakes(attacker: Attacker) -> None:
    line = await attacker.connect()
    try:
        await line.secure()
    finally:
        line.close()


VECTORS = (
    Vector(
        "long-heads",
        "heads of lines of 65 kB, and never the last",
        "32 KiB of a head",
        long_head,
        lanes=1,
        attackers=20,
        quick=True,
    ),
    Vector(
        "finished-heads", "heads of lines of 65 kB", "32 KiB of a head", finished_head, lanes=1, attackers=10
    ),
    Vector("many-lines", "a head of 60,000 lines", "100 lines of a head", many_lines, lanes=4),
    Vector("endless-lines", "request lines without an end", "bytes of a request line", endless_line),
    Vector("slow-heads", "heads that come byte by byte", "10 s for a head", slow_heads, lanes=100),
    Vector(
        "malformed-lines",
        "request lines of 8 kB that look like tokens",
        "a log line's length, and a rate for each kind",
        asking(_TOKENS.encode() + b"\r\n\r\n"),
        quick=True,
    ),
    Vector(
        "token-queries",
        "a thousand tokens in a query",
        "a log line's length",
        token_queries,
        stage=ACCESS_LOG,
    ),
    Vector(
        "logged-headers",
        "headers of 56 kB that look like tokens, where accesses are logged",
        "a log line's length",
        asking(lines("GET /livez HTTP/1.1", f"User-Agent: {_AGENT}", f"Referer: {_AGENT[:8000]}", "Host: x")),
        stage=ACCESS_LOG,
    ),
    Vector(
        "escape-sequences",
        "origins that a terminal would obey",
        "rendered lines are escaped",
        asking(wire.request(Origin=_ESCAPES, User_Agent=_ESCAPES, path="/ws?\x1b[31m")),
        stage=ORIGINS,
        quick=True,
    ),
    Vector(
        "forged-lines",
        "folded header lines that look like lines of the log",
        "400",
        asking(wire.request(Origin=_FORGED)),
        stage=ORIGINS,
    ),
    Vector(
        "refused-tokens",
        "upgrades with tokens that are none",
        "WS_UPGRADE_RATE, a rate for each kind of log line",
        asking(wire.request(path="/ws?token=a.b.c")),
        stage=KEYS,
    ),
    Vector("storm", "upgrades, and away", "WS_UPGRADE_RATE", storm, lanes=20),
    Vector("resets", "upgrades, and a reset", "WS_UPGRADE_RATE", resets, lanes=20),
    Vector(
        "early-resets",
        "upgrade requests, and a reset before the answer",
        "the request queue",
        early_resets,
        lanes=20,
    ),
    Vector("bodies", "bodies that nobody reads", "no body is read", bodies),
    Vector(
        "pipelined-metrics",
        "GET /metrics, without waiting for an answer",
        "requests of a connection; the admin plane",
        pipelined("/metrics", unread=False),
        lanes=2,
        quick=True,
    ),
    Vector(
        "pipelined-health",
        "GET /health, without waiting for an answer",
        "requests of a connection",
        pipelined("/health", unread=False),
        lanes=2,
    ),
    Vector(
        "pipelined-page",
        "GET /client.js, unread",
        "30 s for an answer; one answer at a time",
        pipelined("/client.js", unread=True),
        lanes=25,
    ),
    Vector("silent-tls", "half a ClientHello", "10 s for a handshake", silent_tls, lanes=100, stage=TLS),
    Vector(
        "plain-http",
        "plain HTTP where TLS is spoken",
        "a line of the log, at a rate",
        asking(lines("GET / HTTP/1.1", "Host: x")),
        stage=TLS,
    ),
    Vector("handshakes", "whole TLS handshakes, and away", "the request queue", handshakes, stage=TLS),
)
