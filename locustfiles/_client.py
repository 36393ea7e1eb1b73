"""One client over all its connections: what it wants, where it stands, and its socket while it has one."""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Protocol

from locustfiles._place import START, Place

TOKENS = ("BTC", "ETH", "SOL", "ODIN", "DOGE")  # of the predecessor's test


class Journey(Protocol):
    """When a client comes back: after so many seconds; None: never."""

    def closed(self, code: int, text: str, steady: bool) -> float | None:
        """The server ended a connection, which had lived for a while or not."""

    def refused(self, status: int, retry_after: str | None) -> float | None:
        """The server answered the upgrade with something else."""

    def lost(self, steady: bool) -> float | None:
        """Nobody said anything."""


class Phase(IntEnum):
    """How far a connection is."""

    NONE = 0
    CONNECTING = 1  # TCP
    UPGRADING = 2
    GREETING = 3  # the welcome is due
    SUBSCRIBING = 4  # the acknowledgement is due
    OPEN = 5
    LEAVING = 6  # we said goodbye


class Client:
    """A client.

    Attributes:
        number: in the whole swarm; -1: a probe, which leaves as soon as it is subscribed.
        slow: it reads only so many bytes a second; 0: at once.
        began, asked: when it began to connect, and asked for its channels; monotonic.
        cut_at: when it lost its connection; 0: it has not, or is back.
        round: of its connections.
    """

    __slots__ = (
        "asked",
        "began",
        "buffer",
        "channels",
        "close",
        "cut_at",
        "epoch",
        "journey",
        "left",
        "number",
        "phase",
        "place",
        "recv",
        "returns",
        "round",
        "slow",
        "sock",
    )

    def __init__(self, number: int, channels: tuple[str, ...], journey: Journey | None, slow: float) -> None:
        self.number = number
        self.channels = channels
        self.journey = journey
        self.slow = slow
        self.phase = Phase.NONE
        self.place: Place = START
        self.epoch = ""
        self.sock: Any = None
        self.recv: Callable[[int], bytes]
        self.buffer = b""
        self.close = (1006, "")  # what the server said at the end
        self.began = self.asked = self.cut_at = 0.0
        self.round = 0
        self.left = False  # for good
        self.returns = False  # at once, when its goodbye is answered


def channels_of(mode: str, seed: int, number: int) -> tuple[str, ...]:
    """What a client subscribes to.

    Args:
        mode: all five tokens, a single one, or three of them at random.
    """
    if mode == "all":
        chosen = list(TOKENS)
    else:
        draw = random.Random(f"{seed}:{number}")
        chosen = draw.sample(TOKENS, 1 if mode == "single" else 3)
    return tuple(f"token.{token}" for token in chosen)
