"""Fixtures of the integration tests: a real nats-server, real servers on free ports."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.nats import NatsServer
from tests.server import GUNICORN, Server

Serve = Callable[..., Server]


@contextlib.contextmanager
def _serving() -> Iterator[Serve]:
    servers: list[Server] = []

    def serve(*, ready: bool = True, command: Sequence[str] = GUNICORN, **settings: str) -> Server:
        server = Server(settings, command=command)
        servers.append(server)
        return server.start(ready=ready)

    try:
        yield serve
    finally:
        for server in servers:
            sys.stderr.write(server.log())  # shown if the test failed
            server.stop()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers; they end with the test."""
    with _serving() as serve:
        yield serve


@pytest.fixture(scope="module")
def serve_module() -> Iterator[Serve]:
    """Start servers; they end with the module."""
    with _serving() as serve:
        yield serve


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    """A nats-server with JetStream and an empty store."""
    with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest.fixture(scope="module")
def nats_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """The same for a whole module."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server
