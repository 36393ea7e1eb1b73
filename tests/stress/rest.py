"""Is nothing left? A server that nobody is connected to, held against what it was before a scenario."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import psutil

from tests.server import Server, established, wait_for
from tests.stress.scene import Stayers

REST_SECONDS = 6.0
MOST_GROWTH = 1.1  # of resident memory
_LOOKS = 4
_TROUBLE = re.compile(r"Traceback|\[error|\[critical")


class Rest(NamedTuple):
    """A server that nobody is connected to.

    Attributes:
        greenlets: of a worker, besides the request that asks.
        descriptors: open ones, by the worker's process id.
        rss_bytes: resident memory, by the worker's process id.
        lost: connections that were never closed, since their worker was killed.
        log_size: characters that the server had logged.
    """

    greenlets: int
    descriptors: dict[int, int]
    rss_bytes: dict[int, int]
    lost: int
    log_size: int


def counts(stats: Any, sockets: int) -> dict[str, int]:
    """How many connections there are, by everybody who counts them.

    Args:
        stats: of `/stats`; what it says of workers that did not answer it is at most a second old.
        sockets: server-side ones, by the kernel.
    """
    shards = [shard for worker in stats["workers"] for shard in worker["details"].get("shards", [])]
    return {
        "board": stats["connections"],
        "workers": sum(worker["connections"] for worker in stats["workers"]),
        "strategy": sum(shard["connections"] for shard in shards),
        "kernel": sockets,
    }


def held(server: Server, count: int, seconds: float = 5.0) -> None:
    """Wait until all agree that there are `count` connections."""
    seen: dict[str, int] = {}

    def agree() -> bool:
        sockets = established(server.port)  # first: the request for the figures is a socket too
        seen.update(counts(server.json("/stats"), sockets))
        return set(seen.values()) == {count}

    try:
        wait_for(agree, seconds, f"{count} connections")
    except AssertionError as error:
        raise AssertionError(f"{error}: {seen}") from None


def rest(server: Server) -> Rest:
    """What a server holds at rest; call it behind a load like the one that follows."""
    held(server, 0)
    looks = []
    for _ in range(_LOOKS):
        stats, _, workers = _look(server)
        time.sleep(0.03)  # the request ends
        looks.append((_greenlets(stats), [worker.num_fds() for worker in workers]))
    descriptors = [min(column) for column in zip(*(open_ones for _, open_ones in looks), strict=True)]
    pids = [worker.pid for worker in workers]
    return Rest(
        greenlets=min(greenlets for greenlets, _ in looks),
        descriptors=dict(zip(pids, descriptors, strict=True)),
        rss_bytes={worker.pid: worker.memory_info().rss for worker in workers},
        lost=_lost(stats),
        log_size=len(server.log()),
    )


def warm(server: Server, url: str, *, clients: int = 100, seconds: float = 0.5) -> Rest:
    """Let a server grow to its usual size, and measure it then."""
    with Stayers(server, url, clients) as stayers:
        time.sleep(seconds)
        stayers.unharmed(at_least=10)
    _no_troubles(server.log())
    return rest(server)


def at_rest(server: Server, before: Rest, *, lost: int = 0, provoked: Sequence[str] = ()) -> None:
    """Within a few seconds nothing is left of a scenario, of no worker.

    Args:
        before: of the same server; a worker that was not there then is held against those that were.
        lost: connections of workers that were killed since.
        provoked: regular expressions of lines in the log that the scenario has brought about.

    Raises:
        AssertionError: something is left; it says what.
    """
    found: list[str] = []
    said: set[int] = set()  # slots of workers that were seen without a request of ours

    def quiet() -> bool:
        stats, sockets, processes = _look(server)
        found[:] = _unrest(stats, sockets, processes, before, lost)
        if found:
            said.clear()
        else:
            said.add(stats["answered_by"])
            said.update(w["slot"] for w in stats["workers"] if w["greenlets"] == before.greenlets)
        return len(said) == len(before.descriptors)

    try:
        wait_for(quiet, REST_SECONDS, "rest")
    except AssertionError as error:
        raise AssertionError(f"{error}: {found}, {said} said so") from None
    _no_troubles(server.log()[before.log_size :], provoked)


def troubles(log: str, provoked: Sequence[str] = ()) -> list[str]:
    """Lines of a log that tell of errors, but for those that were provoked."""
    lines = [line for line in log.splitlines() if _TROUBLE.search(line)]
    return [line for line in lines if not any(re.search(pattern, line) for pattern in provoked)]


def _no_troubles(log: str, provoked: Sequence[str] = ()) -> None:
    told = troubles(log, provoked)
    assert not told, f"the log tells of errors: {told[:5]}\n{log[-4000:]}"


def _look(server: Server) -> tuple[Any, int, list[psutil.Process]]:
    """The figures, the sockets of the kernel, and the workers."""
    sockets = established(server.port)  # first: the request for the figures is a socket too
    stats = server.json("/stats")
    return stats, sockets, [psutil.Process(worker["pid"]) for worker in stats["workers"]]


def _unrest(
    stats: Any, sockets: int, processes: Sequence[psutil.Process], before: Rest, lost: int
) -> list[str]:
    """What does not look like rest."""
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
    """Of the worker that answers, without the one for this: what others say may be of such a moment too."""
    [greenlets] = [w["greenlets"] for w in stats["workers"] if w["slot"] == stats["answered_by"]]
    return int(greenlets) - 1


def _lost(stats: Any) -> int:
    return int(stats["accepted"] - sum(stats["closed"].values()))
