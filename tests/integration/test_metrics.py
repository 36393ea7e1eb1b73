"""`/metrics` of three workers while one is killed: no counter falls, no series is duplicated or stale."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

from prometheus_client.parser import text_string_to_metric_families

from tests.server import Server, established, wait_for
from tests.wire import Peer

PEERS = 30
CHANNELS = [f"token.{name}" for name in ("BTC", "ETH", "SOL", "ODIN", "DOGE")]

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(server: Server) -> tuple[Samples, set[tuple[str, tuple[tuple[str, str], ...]]]]:
    """All samples, and which of them never fall. None comes twice."""
    samples: Samples = {}
    rising = set()
    for family in text_string_to_metric_families(server.ask("/metrics")[2].decode()):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in samples
            samples[key] = sample.value
            if family.type in ("counter", "histogram"):
                rising.add(key)
    return samples, rising


def total(samples: Samples, name: str) -> float:
    """A metric over its labels."""
    return sum(value for (found, _), value in samples.items() if found == name)


def workers(samples: Samples) -> set[str]:
    """Which workers have figures."""
    return {dict(labels)["worker"] for _, labels in samples if "worker" in dict(labels)}


def test_a_worker_is_killed() -> None:
    """Scraped all the while, by way of whichever worker answers."""
    falls: list[str] = []
    seen: list[Samples] = []
    done = threading.Event()

    def watch(server: Server) -> None:
        highest: Samples = {}
        while not done.is_set():
            with contextlib.suppress(OSError):  # the one that was asked was killed
                samples, rising = scrape(server)
                falls.extend(
                    f"{key}: {highest[key]} {samples[key]}"
                    for key in rising & highest.keys()
                    if samples[key] < highest[key]
                )
                highest.update({key: samples[key] for key in rising})
                seen.append(samples)
            time.sleep(0.02)

    settings = {"WS_WORKERS": "3", "WS_SHARD_STRATEGY": "fnv-sharded", "WS_REBALANCE_RATE": "0"}
    with Server(settings) as server, contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Peer(server.port)) for _ in range(PEERS)]
        for peer in peers:
            peer.upgrade()
            peer.ask("subscribe", channels=CHANNELS)
        wait_for(
            lambda: total(scrape(server)[0], "ws_subscriptions") == PEERS * len(CHANNELS), 5, "all count"
        )
        watcher = threading.Thread(target=watch, args=(server,))
        watcher.start()
        try:
            wait_for(lambda: len(seen) > 10, 20, "some scrapes")
            victim = max(server.json("/stats")["workers"], key=lambda worker: worker["connections"])
            before = seen[-1]
            os.kill(victim["pid"], signal.SIGKILL)
            left = PEERS - victim["connections"]
            wait_for(lambda: total(seen[-1], "ws_worker_starts_total") == 4, 10, "a successor")
            wait_for(lambda: total(seen[-1], "ws_worker_accepting") == 3, 10, "it accepts")
            wait_for(lambda: total(seen[-1], "ws_subscriptions") == left * len(CHANNELS), 5, "no more count")
            count = len(seen)
            wait_for(lambda: len(seen) > count + 10, 20, "some scrapes more")
        finally:
            done.set()
            watcher.join()
        assert falls == []
        after = seen[-1]
        assert total(after, "ws_connections") == left
        assert established(server.port) >= left  # the requests for metrics come and go
        assert total(before, "ws_connections_accepted_total") == PEERS
        assert {total(samples, "ws_connections_accepted_total") for samples in seen} == {PEERS}
        assert {total(samples, "ws_connections") for samples in seen} == {PEERS, left}
        assert workers(after) == {"0", "1", "2"}
        assert all(workers(samples) <= {"0", "1", "2"} for samples in seen)
        assert total(after, "ws_messages_delivered_total") > total(before, "ws_messages_delivered_total")
        assert total(after, "ws_cpu_seconds_total") > total(before, "ws_cpu_seconds_total")
