"""Who asks for the inside without being in it: nothing of it may be had."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tests import wire
from tests.attack.attacker import Answer, Attacker
from tests.attack.stages import TRUSTING
from tests.attack.vectors.base import Move, Vector, lines

_PATHS = ("/stats", "/metrics", "/debug", "/debug/heap", "/debug/connections", "/debug/greenlets", "/health")
_CHANGES = ("/debug/resize?shards=4",)
_OPEN = {"status", "healthy"}  # of /health, for strangers
_FORWARDED = (
    *((), ("X-Forwarded-For: 127.0.0.1",), ("X-Forwarded-For: ::1",), ("X-Real-IP: 127.0.0.1",)),
    *(("Forwarded: for=127.0.0.1",), ("X-Forwarded-For: 127.0.0.1, 127.0.0.1",), ("Via: 1.1 proxy",)),
    ("CF-Connecting-IP: 127.0.0.1", "X-Forwarded-Host: localhost"),
)


def asks(
    hosts: Iterable[str], headers: Iterable[tuple[str, ...]], *, local: bool = False, admin: bool = False
) -> Move:
    """A move that asks all paths with each of the hosts and headers, and notes what it is given."""
    variants = [(host, more) for host in hosts for more in headers]

    async def move(attacker: Attacker) -> None:
        for host, more in variants:
            for method, paths in (("GET", _PATHS), ("POST", _CHANGES)):
                for path in paths:
                    if admin and not attacker.plan.admin_port:
                        continue
                    request = lines(f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *more)
                    answer = await attacker.ask(request, local=local, admin=admin)
                    if _is_inside(path, answer):
                        with_headers = f" with {', '.join((f'Host: {host}', *more))}"
                        attacker.breaches[f"{method} {path}{with_headers}"] = None

    return move


def _is_inside(path: str, answer: Answer) -> bool:
    """Whether something was had; redirects and refusals have nothing."""
    if path == "/health":
        return answer.status in (200, 503) and not set(json.loads(answer.body)) <= _OPEN
    return 200 <= answer.status < 300


async def stats_channel(attacker: Attacker) -> None:
    """The figures are a channel too: for those who are inside."""
    for local in (False, True):
        for fields in _FORWARDED:
            line = await attacker.upgrade(local=local, headers=fields)
            await line.send(wire.command("subscribe", channels=["server.stats"]))
            if b'"subscribed":["server.stats"]' in await line.answer(b'"subscription_ack"'):
                attacker.breaches[f"server.stats, {'local' if local else 'remote'}, {fields}"] = None
            line.close()


VECTORS = (
    Vector(
        "strangers",
        "requests for the inside, as they come",
        "the admin plane",
        asks(["feed.example"], [()]),
        lanes=1,
        attackers=1,
        quick=True,
    ),
    Vector(
        "forwarded",
        "headers that say 127.0.0.1, from a host in WS_TRUSTED_PROXIES",
        "local is whose socket is local and whose every hop is",
        asks(["feed.example", "localhost"], _FORWARDED),
        lanes=1,
        attackers=1,
        stage=TRUSTING,
        quick=True,
    ),
    Vector(
        "same-host-proxy",
        "requests by a proxy on the same machine that sets no header",
        "the admin plane has a port of its own",
        asks(["feed.example", "localhost"], _FORWARDED, local=True),
        lanes=1,
        attackers=1,
        quick=True,
    ),
    Vector(
        "stats-channel",
        "subscriptions to the figures, with headers that say 127.0.0.1, and by a proxy on the same machine",
        "the figures are a channel of the admin plane",
        stats_channel,
        lanes=1,
        attackers=1,
        stage=TRUSTING,
    ),
    Vector(
        "rebinding",
        "requests to the admin plane by a page whose name leads to 127.0.0.1",
        "Host and Sec-Fetch-Site are checked",
        asks(
            ["evil.example", "evil.example:3005"],
            [(), ("Sec-Fetch-Site: same-origin",), ("Origin: http://evil.example",)],
            local=True,
            admin=True,
        ),
        lanes=1,
        attackers=1,
        quick=True,
    ),
    Vector(
        "image-tags",
        "an image tag of a foreign page that asks for the heap",
        "Sec-Fetch-Site is checked",
        asks(
            ["localhost", "127.0.0.1"],
            [("Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: image")],
            local=True,
            admin=True,
        ),
        lanes=1,
        attackers=1,
    ),
)
