"""The servers of NATS: those of the settings, and those that a cluster has made known."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import ParseResult, urlparse

import msgspec

from odinws.shared.recent import CLUSTER_BYTES, RingBuffer


class Server(NamedTuple):
    """Where a session connects to.

    Attributes:
        tls_hostname: the name in its certificate, if it is not that of the URL; None: it is.
    """

    url: str
    tls_hostname: str | None = None


class Servers:
    """One server after the other, beginning anywhere, so that workers spread over a cluster.

    Args:
        urls: those of the settings.
        cluster: keeps the others, one entry of `CLUSTER_BYTES`; shared by workers, so that those that start
            while a server of the settings is away know the others too. None: an own one.

    Raises:
        OSError: the system gives no memory for an own one.
    """

    def __init__(self, urls: Sequence[str], cluster: RingBuffer | None = None) -> None:
        self._given = [Server(url) for url in random.sample(urls, len(urls))]
        self._cluster = RingBuffer(1, CLUSTER_BYTES) if cluster is None else cluster
        self._turn = -1

    def next(self) -> Server:
        """The server whose turn it is."""
        servers = self._given + self._learned()
        self._turn = (self._turn + 1) % len(servers)
        return servers[self._turn]

    def learn(self, found: Iterable[ParseResult], over: Server) -> None:
        """Remember what a cluster says of itself, instead of what it said before, unless it says nothing.

        Args:
            over: the server that said it: the others take the same credentials, and their certificates have
                its name, if they are known by address only.
        """
        via = urlparse(over.url)
        login, at, _ = via.netloc.rpartition("@")
        name = over.tls_hostname or via.hostname
        learned = [
            Server(
                f"{via.scheme}://{login}{at}{one.netloc}",
                name if _is_address(one.hostname) and not _is_address(name) else None,
            )
            for one in found
            if (one.hostname, one.port) not in {_place(server.url) for server in self._given}
        ]
        while len(entry := msgspec.json.encode(learned)) > CLUSTER_BYTES:
            learned.pop()
        if learned:
            self._cluster.add(entry)

    def _learned(self) -> list[Server]:
        return [
            one for entry in self._cluster.latest(1) for one in msgspec.json.decode(entry, type=list[Server])
        ]


def _place(url: str) -> tuple[str | None, int | None]:
    parsed = urlparse(url)
    return parsed.hostname, parsed.port or 4222


def _is_address(host: str | None) -> bool:
    try:
        ipaddress.ip_address(host or "")
    except ValueError:
        return False
    return True
