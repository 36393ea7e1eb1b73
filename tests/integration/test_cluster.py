"""Several hosts: three nats-servers, two servers and haproxy, while parts of it die and drain."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Iterator

import nats
import pytest
from websockets.sync.client import connect

from odinws.client import Client, Gap, Message
from odinws.lab.cluster import Cluster, ClusterError, find_haproxy
from tests.ledger import Ledger, read
from tests.programs import miss
from tests.resuming.sites import leader
from tests.server import PATIENCE_SECONDS, wait_for

CHANNELS = [f"token.T{n}" for n in range(10)]
CLIENTS = 8


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """All of it."""
    try:
        find_haproxy()
    except ClusterError as error:
        miss(str(error))
    with Cluster({"WS_DRAIN_SECONDS": "3", "WS_RING_MESSAGES": "500"}) as cluster:
        yield cluster


class Source:
    """Publishes at a rate; each message until the stream has acknowledged it."""

    def __init__(self, url: str, rate: float) -> None:
        self._url, self._rate = url.split(","), rate
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.acknowledged = 0

    async def _run(self) -> None:
        client = await nats.connect(self._url, connect_timeout=2, max_reconnect_attempts=-1)
        js = client.jetstream(timeout=2.0)
        number, began = 0, time.monotonic()
        while not self._stopping.is_set():
            try:
                headers = {"Nats-Msg-Id": str(number)}
                await js.publish(f"odin.{CHANNELS[number % 10]}", b'{"n":%d}' % number, headers=headers)
            except (nats.errors.Error, OSError):
                await asyncio.sleep(0.05)
                continue
            number += 1
            self.acknowledged = number
            await asyncio.sleep(max(0.0, began + number / self._rate - time.monotonic()))
        await client.close()

    def __enter__(self) -> Source:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()


class Watcher:
    """A client through the balancer, in a thread."""

    def __init__(self, url: str) -> None:
        self.client = Client(url, CHANNELS)
        self.got: dict[str, list[int]] = defaultdict(list)
        self.gaps: list[Gap] = []
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            for event in self.client:
                if isinstance(event, Message):
                    self.got[event.channel].append(event.seq)
                elif isinstance(event, Gap):
                    self.gaps.append(event)
        except BaseException as error:
            self.failure = error
            raise

    def wrong(self, truth: Ledger) -> list[str]:
        """What is missing, too much, or out of order."""
        return [
            f"{channel}: {len(got)} of {len(due)}"
            for channel in CHANNELS
            for got in [self.got[channel]]
            for due in [[seq for seq in truth.seqs[channel] if got and seq >= got[0]]]
            if got != due
        ]


def test_whatever_dies_nobody_misses_anything(cluster: Cluster) -> None:
    """A host drains and comes back, the leader of the stream is killed and comes back, a worker is killed."""
    url = f"ws://127.0.0.1:{cluster.port}/ws"
    with Source(cluster.nats_url, 100) as source:
        watchers = [Watcher(url) for _ in range(CLIENTS)]
        wait_for(lambda: all(len(w.got) == 10 for w in watchers), 20, "the first messages")
        held = [host.json("/stats")["connections"] for host in cluster.hosts]
        assert sum(held) == CLIENTS
        assert min(held) >= 1, "the balancer uses both"

        cluster.parts["host-0"].send_signal(signal.SIGTERM)
        time.sleep(0.7)  # the balancer looks every half second
        for _ in range(5):
            with connect(url) as client:
                assert json.loads(client.recv(PATIENCE_SECONDS))["type"] == "welcome"
        assert cluster.parts["host-0"].wait(PATIENCE_SECONDS) == 0
        cluster.parts["host-0"].start()

        lead = leader(cluster.nats_url)
        cluster.parts[f"nats-{lead}"].send_signal(signal.SIGKILL)
        cluster.parts[f"nats-{lead}"].wait(PATIENCE_SECONDS)
        before = source.acknowledged
        wait_for(lambda: source.acknowledged > before + 100, 30, "another leader")
        cluster.parts[f"nats-{lead}"].start()
        [worker] = cluster.hosts[1].json("/stats")["workers"]
        os.kill(worker["pid"], signal.SIGKILL)
        time.sleep(3)
        before = source.acknowledged
        wait_for(lambda: source.acknowledged > before + 50, 20, "more messages")
    truth = read(f"nats://127.0.0.1:{cluster.node_ports[(leader(cluster.nats_url))]}")
    assert len(truth) == source.acknowledged
    try:
        wait_for(lambda: not any(w.wrong(truth) for w in watchers), 20, "all messages")
    finally:
        for watcher in watchers:
            watcher.client.close()
        for watcher in watchers:
            watcher.thread.join(PATIENCE_SECONDS)
    assert [w.wrong(truth) for w in watchers] == [[]] * CLIENTS
    assert [w.gaps for w in watchers] == [[]] * CLIENTS
    assert [w.failure for w in watchers] == [None] * CLIENTS
    for host in cluster.hosts:
        feed = host.json("/stats")["feed"]
        assert feed["redelivered"] == feed["duplicates"] == 0
        assert feed["received"] == feed["published"] > 0
