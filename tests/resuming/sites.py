"""Where a proof takes place, and what harm can be done there."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import nats

from odinws.harness import fetch
from odinws.lab.cluster import Cluster
from tests.ledger import STREAM
from tests.nats import NatsServer
from tests.server import PATIENCE_SECONDS, Server

_AWAY_SECONDS = 3.0  # of a nats-server or a host that was ended

Deed = tuple[float, str, Callable[[], object]]
"""When (share of the run), what, and how."""


class Site(Protocol):
    """Servers and their NATS."""

    port: int
    """Where clients connect."""
    nats_url: str

    @property
    def deeds(self) -> Sequence[Deed]:
        """What is done to it beside the killing of workers."""

    def stats(self) -> list[Any]:
        """`/stats` of each host that answers."""

    def __enter__(self) -> Self:
        """Start it."""

    def __exit__(self, *_: Any) -> None:
        """End it."""


class OneHost:
    """One server with two workers, one nats-server."""

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        self._nats = NatsServer(directory)
        self._settings = settings

    def __enter__(self) -> Self:
        self._nats.start()
        self.nats_url = self._nats.url
        try:
            self._server = Server({"NATS_URL": self.nats_url, **self._settings}).start()
        except BaseException:
            self._nats.stop()
            raise
        self.port = self._server.port
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self._server.__exit__(*error)
        finally:
            self._nats.stop()

    @property
    def deeds(self) -> Sequence[Deed]:
        """See `Site`."""
        return (
            (0.4, "nats-server killed and restarted", self._nats.restart),
            (0.7, "reload", lambda: self._server.signal(signal.SIGHUP)),
        )

    def stats(self) -> list[Any]:
        """See `Site`."""
        return _stats([self._server.admin_port])


class TwoHosts:
    """Two servers with two workers each behind haproxy, on a cluster of three nats-servers."""

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        self._cluster = Cluster({"WS_WORKERS": "2", **settings})
        self.port, self.nats_url = self._cluster.port, self._cluster.nats_url

    def __enter__(self) -> Self:
        self._cluster.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._cluster.stop()

    @property
    def deeds(self) -> Sequence[Deed]:
        """See `Site`."""
        return (
            (0.25, "the stream's leader killed and started again", self._kill_leader),
            (0.4, "a host drained and started again", self._drain),
            (0.6, "a nats-server killed and started again", lambda: self._bounce(0)),
            (0.75, "reload of a host", lambda: self._cluster.parts["host-1"].send_signal(signal.SIGHUP)),
        )

    def stats(self) -> list[Any]:
        """See `Site`."""
        return _stats([host.admin_port for host in self._cluster.hosts])

    def _kill_leader(self) -> None:
        self._bounce(leader(self.nats_url))

    def _bounce(self, node: int) -> None:
        self._cluster.parts[f"nats-{node}"].send_signal(signal.SIGKILL)
        self._cluster.parts[f"nats-{node}"].wait(PATIENCE_SECONDS)
        time.sleep(_AWAY_SECONDS)
        self._cluster.parts[f"nats-{node}"].start()

    def _drain(self) -> None:
        self._cluster.parts["host-0"].send_signal(signal.SIGTERM)
        self._cluster.parts["host-0"].wait(PATIENCE_SECONDS)
        time.sleep(_AWAY_SECONDS)
        self._cluster.parts["host-0"].start()


def leader(nats_url: str) -> int:
    """The node of a `Cluster` that leads the stream."""

    async def ask() -> int:
        client = await nats.connect(nats_url.split(","), connect_timeout=60)
        info = await client.jetstream().stream_info(STREAM)
        await client.close()
        assert info.cluster is not None
        return int(str(info.cluster.leader).removeprefix("n"))

    return asyncio.run(ask())


def _stats(ports: Sequence[int]) -> list[Any]:
    found = []
    for port in ports:
        try:
            found.append(json.loads(fetch.body(port, "/stats", seconds=5.0)))
        except OSError:
            continue
    return found
