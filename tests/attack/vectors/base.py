"""What a vector is, and what several of them send."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, NamedTuple

from tests import wire
from tests.attack.attacker import Attacker, Line
from tests.attack.stages import PLAIN, Stage

Move = Callable[[Attacker], Coroutine[Any, Any, Line | None]]


class Vector(NamedTuple):
    """One way to do harm.

    Attributes:
        sends: what, in a few words.
        bound: which bound should stop it.
        move: what one connection does; it is done again once the server has ended the connection that it
            returns, or at once if it returns none.
        lanes: how many connections of each attacker do so at a time.
        quick: whether the short form has it.
        ends: the reason by which the bound ends or refuses connections: unless it did, nothing is proven.
        least: WebSockets that must have been, the same.
    """

    name: str
    sends: str
    bound: str
    move: Move
    lanes: int = 10
    attackers: int = 4
    stage: Stage = PLAIN
    quick: bool = False
    ends: str = ""
    least: int = 0


def deflated(payload: bytes, opcode: int = wire.TEXT) -> bytes:
    """A compressed frame."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return wire.frame(opcode, data[:-4], reserved=4)


def command(kind: str, **data: Any) -> bytes:
    """A compressed command."""
    return deflated(json.dumps({"type": kind, "data": data}, separators=(",", ":")).encode())


def padded_heartbeat(size: int) -> bytes:
    """A heartbeat that is inflated to so many bytes."""
    text = b'{"type":"heartbeat"}'
    return deflated(text[:-1] + b" " * (size - len(text)) + b"}")


def channels(first: int, count: int) -> list[str]:
    """Channels that differ, with short names."""
    return [f"token.{number:x}" for number in range(first, first + count)]


def lines(*fields: str) -> bytes:
    """A head of these lines."""
    return "\r\n".join([*fields, "", ""]).encode("latin-1")


def named(prefix: str, values: Iterable[str]) -> list[str]:
    """Header lines X-0, X-1, ..."""
    return [f"{prefix}{number}: {value}" for number, value in enumerate(values)]
