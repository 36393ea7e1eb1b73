"""How clients speak and behave. Mirrors options.h, which explains the fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Wire:
    """How a client speaks to a server."""

    path: str = "/"
    hello: str = ""
    prefix: str = '{"type":"subscribe","data":{"channels":['
    item: str = '"%c"'
    separator: str = ","
    suffix: str = "]}}"
    ack: str = "subscription_ack"
    ask: str = ""
    reply: str = ""
    binary: bool = False
    numbered: bool = False


@dataclass(frozen=True)
class Load:
    """How many clients, and how they behave."""

    connections: int
    channels: Sequence[str]
    subscribed: int
    seed: int = 0
    rate: int = 0
    """Connections begun per second; 0: as fast as `in_flight` handshakes at one time allow."""
    in_flight: int = 256
    stall_permille: int = 0
    churn_per_second: int = 0
    joins: int = 0
    join_rate: int = 0
    deflate: bool = False
    receive_buffer: int = 4096
    expect_first: bool = True
