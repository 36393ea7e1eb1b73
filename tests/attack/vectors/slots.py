"""What takes the places of others."""

from __future__ import annotations

import time

import jwt

from tests import wire
from tests.access.material import SECRET
from tests.attack.attacker import Attacker, Line
from tests.attack.stages import SMALL, SMALL_KEYS
from tests.attack.vectors.base import Vector, lines

_TOKEN = jwt.encode({"sub": "everywhere", "exp": time.time() + 3600}, SECRET, "HS256")


async def idle_connection(attacker: Attacker) -> Line:
    line = await attacker.upgrade()
    await line.send(wire.command("subscribe", channels=["global"]))
    return line


async def one_subject(attacker: Attacker) -> Line:
    """Each attacker has another address and the same token."""
    return await attacker.upgrade(path=f"/ws?token={_TOKEN}")


async def keep_alive(attacker: Attacker) -> Line:
    line = await attacker.connect()
    await line.send(lines("GET /livez HTTP/1.1", "Host: x"))
    await line.head()
    return line


async def silence(attacker: Attacker) -> Line:
    return await attacker.connect()


async def unanswered_close(attacker: Attacker) -> None:
    """The server closes, waits for an answer, and gets none; then the next."""
    line = await attacker.upgrade(unread=True)
    await line.send(wire.frame(wire.BINARY, b"x"))


async def half_closed(attacker: Attacker) -> Line:
    line = await attacker.upgrade()
    await line.send(wire.close(1000))
    await line.drain()
    return line


VECTORS = (
    Vector(
        "all-slots",
        "as many connections as can be had, from one address",
        "WS_MAX_PER_ADDRESS",
        idle_connection,
        lanes=400,
        attackers=1,
        stage=SMALL,
        quick=True,
        ends="address",
    ),
    Vector(
        "one-subject",
        "as many connections as can be had with one token, from four addresses",
        "WS_MAX_PER_SUBJECT",
        one_subject,
        lanes=100,
        stage=SMALL_KEYS,
        ends="subject",
    ),
    Vector(
        "keep-alives",
        "requests, and then nothing on the same connection",
        "idle keep-alives are closed first",
        keep_alive,
        lanes=400,
        stage=SMALL,
    ),
    Vector(
        "silence",
        "connections without a byte",
        "10 s for the first byte; connections of an address",
        silence,
        lanes=400,
        stage=SMALL,
    ),
    Vector(
        "unanswered-closes",
        "binary frames, and the server's close frame is not answered",
        "WS_CLOSE_SECONDS",
        unanswered_close,
        lanes=20,
    ),
    Vector("closes", "upgrades, and a close frame", "WS_UPGRADE_RATE", half_closed, lanes=20),
)
