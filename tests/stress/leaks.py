"""Leak checks: compares a server without connections with its baseline before the scenario."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import psutil

from tests.server import Server, established, wait_for
from tests.stress.scenario import Listeners

SETTLE_SECONDS = 6.0
MOST_GROWTH = 1.1  # of resident memory
_LOOKS = 4
_ERROR = re.compile(r"Traceback|\[error|\[critical")


class Baseline(NamedTuple):
    """A server without connections.

    Attributes:
        greenlets: of a worker, without that of the request for them.
        descriptors: open ones, by the worker's process id.
        rss_bytes: resident memory, by the worker's process id.
        lost: connections that were never closed, because their worker was killed.
        log_size: length of the log, in characters.
    """

    greenlets: int
    descriptors: dict[int, int]
    rss_bytes: dict[int, int]
    lost: int
    log_size: int


def counts(stats: Any, sockets: int) -> dict[str, int]:
    """The number of connections by each source.

    Args:
        stats: from `/stats`; the part of other workers is at most a second old.
        sockets: of the server, by the kernel.
    """
    shards = [shard for worker in stats["workers"] for shard in worker["details"].get("shards", [])]
    return {
        "board": stats["connections"],
        "workers": sum(worker["connections"] for worker in stats["workers"]),
        "strategy": sum(shard["connections"] for shard in shards),
        "kernel": sockets,
    }


def wait_for_connections(server: Server, count: int, seconds: float = 5.0) -> None:
    """Wait until all sources agree on `count` connections."""
    seen: dict[str, int] = {}

    def agree() -> bool:
        sockets = established(server.port)  # first: the request for the figures is a socket too
        seen.update(counts(server.json("/stats"), sockets))
        return set(seen.values()) == {count}

    try:
        wait_for(agree, seconds, f"{count} connections")
    except AssertionError as error:
        raise AssertionError(f"{error}: {seen}") from None


def measure_baseline(server: Server) -> Baseline:
    """Measure a server without connections; call this after a load like the one that follows."""
    wait_for_connections(server, 0)
    looks = []
    for _ in range(_LOOKS):
        stats, _, workers = _look(server)
        time.sleep(0.03)  # the request ends
        looks.append((_greenlets(stats), [worker.num_fds() for worker in workers]))
    descriptors = [min(column) for column in zip(*(open_ones for _, open_ones in looks), strict=True)]
    pids = [worker.pid for worker in workers]
    return Baseline(
        greenlets=min(greenlets for greenlets, _ in looks),
        descriptors=dict(zip(pids, descriptors, strict=True)),
        rss_bytes={worker.pid: worker.memory_info().rss for worker in workers},
        lost=_lost(stats),
        log_size=len(server.log()),
    )


def warm_up(server: Server, url: str, *, clients: int = 100, seconds: float = 0.5) -> Baseline:
    """Put a server under load, so that it grows to its usual size, and measure it then."""
    with Listeners(server, url, clients) as listeners:
        time.sleep(seconds)
        listeners.assert_complete(at_least=10)
    _assert_no_errors(server.log())
    return measure_baseline(server)


def assert_no_leaks(
    server: Server, before: Baseline, *, lost: int = 0, expected_errors: Sequence[str] = ()
) -> None:
    """Wait a few seconds until nothing is left of a scenario in any worker.

    Args:
        before: the baseline of the same server; a new worker is compared with those of then.
        lost: connections of workers that were killed since.
        expected_errors: regular expressions of error lines that the scenario has caused.

    Raises:
        AssertionError: something is left; the message says what.
    """
    found: list[str] = []
    said: set[int] = set()  # slots of workers that were seen without a request of ours

    def quiet() -> bool:
        stats, sockets, processes = _look(server)
        found[:] = _differences(stats, sockets, processes, before, lost)
        if found:
            said.clear()
        else:
            said.add(stats["answered_by"])
            said.update(w["slot"] for w in stats["workers"] if w["greenlets"] == before.greenlets)
        return len(said) == len(before.descriptors)

    try:
        wait_for(quiet, SETTLE_SECONDS, "rest")
    except AssertionError as error:
        raise AssertionError(f"{error}: {found}, {said} said so") from None
    _assert_no_errors(server.log()[before.log_size :], expected_errors)


def error_lines(log: str, expected_errors: Sequence[str] = ()) -> list[str]:
    """The error lines of a log, without expected ones."""
    lines = [line for line in log.splitlines() if _ERROR.search(line)]
    return [line for line in lines if not any(re.search(pattern, line) for pattern in expected_errors)]


def _assert_no_errors(log: str, expected_errors: Sequence[str] = ()) -> None:
    found = error_lines(log, expected_errors)
    assert not found, f"errors in the log: {found[:5]}\n{log[-4000:]}"


def _look(server: Server) -> tuple[Any, int, list[psutil.Process]]:
    """The stats, the kernel's count of sockets, and the workers."""
    sockets = established(server.port)  # first: the request for the figures is a socket too
    stats = server.json("/stats")
    return stats, sockets, [psutil.Process(worker["pid"]) for worker in stats["workers"]]


def _differences(
    stats: Any, sockets: int, processes: Sequence[psutil.Process], before: Baseline, lost: int
) -> list[str]:
    """What differs from the baseline."""
    found = [f"{name} counts {count}" for name, count in counts(stats, sockets).items() if count]
    shards = [shard for worker in stats["workers"] for shard in worker["details"].get("shards", [])]
    if any(shard["subscriptions"] for shard in shards) or stats["subscriptions"]:
        found.append(f"{stats['subscriptions']} subscriptions, {shards}")
    if len(stats["workers"]) != len(before.descriptors):
        found.append(f"{len(stats['workers'])} workers")
    if (greenlets := _greenlets(stats)) != before.greenlets:
        found.append(f"{greenlets} greenlets, {before.greenlets} before")
    known = before.descriptors
    for process in processes:
        count = process.num_fds()
        if count not in ({known[process.pid]} if process.pid in known else set(known.values())):
            found.append(f"{count} descriptors of {process.pid}, before: {known}")
        most = MOST_GROWTH * before.rss_bytes.get(process.pid, max(before.rss_bytes.values()))
        if (rss_bytes := process.memory_info().rss) > most:
            found.append(f"{rss_bytes} bytes of {process.pid}, before: {before.rss_bytes}")
    if _lost(stats) - before.lost != lost:
        found.append(f"{_lost(stats) - before.lost} connections were never closed, {lost} of killed workers")
    differences = stats["reconciliation"]["differences"]
    if any(differences.values()):
        found.append(f"counts were not true: {differences}")
    return found


def _greenlets(stats: Any) -> int:
    """Greenlets of the worker that answers, without that of this request; other workers may serve one too."""
    [greenlets] = [w["greenlets"] for w in stats["workers"] if w["slot"] == stats["answered_by"]]
    return int(greenlets) - 1


def _lost(stats: Any) -> int:
    return int(stats["accepted"] - sum(stats["closed"].values()))
