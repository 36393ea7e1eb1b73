"""What an arm is: how to build a server, how to start it, how to speak to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from bench.build import ROOT
from bench.client.driver import Wire
from bench.scenarios import Scenario

Build = Callable[[], dict[str, str]]
"""Makes ready all that a command needs; returns versions by name. Raises MissingError."""


class FeedKind(Enum):
    """How the feed's messages reach the server."""

    SOCKET = "whole frames over a unix socket"
    NATS = "payloads over a nats-server beside it, whose CPU does not count"
    OWN_NATS = "whole frames over NATS; the server is a nats-server itself"


@dataclass(frozen=True)
class Place:
    """Where and for what one server is started."""

    directory: Path
    """Empty, the server's alone, gone afterwards."""
    port: int
    nats_port: int
    feed_socket: Path
    scenario: Scenario
    """What is wanted of it."""


@dataclass(frozen=True)
class Command:
    """How to start a server."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready_path: str = ""
    """An HTTP path that answers 200 once the server is ready; empty: it is when its port accepts."""
    directory: Path = ROOT
    """Where it runs."""


@dataclass(frozen=True)
class Arm:
    """One server to be measured."""

    name: str
    title: str
    build: Build
    command: Callable[[Place], Command]
    wire: Wire = field(default_factory=Wire)
    feed: FeedKind = FeedKind.SOCKET
    takes_workers: bool = False
    """False: one process, whatever the scenario says."""
    pip_only: bool = False
    """True: needs nothing but Python packages, so the smoke runs it."""
    excluded_processes: tuple[str, ...] = ()
    """Names of child processes that do not count."""
    deflates: bool = False
    """It can compress messages (permessage-deflate)."""
    metrics_path: str = ""
    """Where it exposes odinws's metrics; empty: nowhere."""
    is_watched: bool = False
    """True: its metrics are fetched every five seconds of a window, as conf/prometheus has it."""
    on_request: bool = False
    """True: neither `all` nor its kind stands for it; it runs when it is named."""
