"""What an arm is: how to build a server, how to start it, how to speak to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from bench.client.driver import Wire
from bench.scenarios import Scenario
from odinws.harness.server import Server

Build = Callable[[], dict[str, str]]
"""Makes ready all that a command needs; returns versions by name. Raises MissingError."""


class FeedKind(Enum):
    """How the feed's messages reach the server."""

    SOCKET = "whole frames over a unix socket"
    NATS = "payloads over a nats-server beside it, whose CPU does not count; the server is an odinws"
    OWN_NATS = "whole frames over NATS; the server is a nats-server itself"
    HTTP = "whole frames, published by requests to nchan"
    MQTT = "whole frames, published over MQTT"


@dataclass(frozen=True)
class Place:
    """Where and for what one server is started."""

    directory: Path
    """Empty, the server's alone, gone afterwards."""
    port: int
    nats_port: int
    """Of the nats-server, or of another listener for the feed."""
    scenario: Scenario
    """What is wanted of it."""
    inner_port: int = 0
    """Of a server that has a proxy in front."""

    @property
    def feed_socket(self) -> Path:
        """Of the feed, for those who take it from there."""
        return self.directory / "feed.sock"

    @property
    def log(self) -> Path:
        """Takes what the server says."""
        return self.directory / "server.log"


@dataclass(frozen=True)
class Arm:
    """One server to be measured."""

    name: str
    title: str
    build: Build
    server: Callable[[Place], Server]
    """What is started there."""
    wires: Sequence[Wire] = (Wire(),)
    """Its clients speak in each of these ways, in equal parts."""
    feed: FeedKind = FeedKind.SOCKET
    takes_workers: bool = False
    """False: one process, whatever the scenario says."""
    pip_only: bool = False
    """True: needs nothing but Python packages, so the smoke runs it."""
    debian: tuple[str, ...] = ()
    """Its packages of Debian."""
    most_subscribed: int | None = None
    """Channels that one of its connections can have; None: any number."""
    deflates: bool = False
    """It can compress messages (permessage-deflate)."""
    is_watched: bool = False
    """True: its metrics are fetched every five seconds of a window, as conf/prometheus has it."""
    on_request: bool = False
    """True: neither `all` nor its kind stands for it; it runs when it is named."""
