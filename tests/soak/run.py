"""One run: a nats-server, a server, a feed, a population, and samples."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests import ledger
from tests.ledger import Publisher
from tests.nats import NatsServer
from tests.server import Server, established, wait_for
from tests.soak import judging
from tests.soak.population import CHANNELS, Population
from tests.soak.samples import Sample
from tests.soak.sampling import take
from tests.swarm import Swarm

SAMPLE_SECONDS = 5.0

_STEP_SECONDS = 0.1
_SLACK_SECONDS = 2.0  # besides the longest delay that clients have seen
_LAST_SECONDS = 10.0
_EXPECTED_CODES = {0, 1000, 1005}  # none, ours given back
_SHOWN = 5
# Nobody may be refused or sent away but by a defect, and the stream must keep all, to compare with: it has
# room for about four million messages, which is most of a day.
_SETTINGS = {
    "WS_WORKERS": "2",
    "WS_RECONCILE_SECONDS": "5",
    "WS_CPU_REJECT_THRESHOLD": "100",
    "WS_MEMORY_REJECT_THRESHOLD": "100",
    "WS_MEMORY_HARD_THRESHOLD": "200",
    "WS_HUB_LAG_THRESHOLD_MS": "60000",
    "WS_REBALANCE_RATE": "0",
    "JS_STREAM_MAX_AGE": "1000h",
    "JS_STREAM_MAX_MSGS": "1000000000",
    "JS_STREAM_MAX_BYTES": str(1 << 30),
}


class Plan(NamedTuple):
    """What is run.

    Attributes:
        seconds: of churn.
        rate: messages per second of the feed, over all channels.
    """

    seconds: float
    clients: int
    seed: int
    rate: float


class Result(NamedTuple):
    """What came of it.

    Attributes:
        published: messages that the stream took.
        got: data messages that the clients read.
        faults: what was wrong, one line each.
    """

    samples: list[Sample]
    published: int
    got: int
    faults: list[str]


def run(plan: Plan, directory: Path, tell: Callable[[Sample], object]) -> Result:
    """Run it.

    Args:
        directory: for what NATS stores.
        tell: called with each sample.

    Raises:
        AssertionError: nats-server or server did not come up, or a client's request was never answered.
    """
    samples: list[Sample] = []
    with ExitStack() as stack:
        nats = stack.enter_context(NatsServer(directory / "nats"))
        settings = {**_SETTINGS, "NATS_URL": nats.url, "WS_MAX_CONNECTIONS": str(2 * plan.clients)}
        server = stack.enter_context(Server(settings))
        swarm = stack.enter_context(Swarm(server.port))
        population = Population(swarm, plan.clients, Random(plan.seed))
        population.fill()
        started = time.monotonic()
        with Publisher(nats.url, CHANNELS, plan.rate):
            while (elapsed := time.monotonic() - started) < plan.seconds:
                _churn(population, min(SAMPLE_SECONDS, plan.seconds - elapsed))
                swarm.settle()
                missing = population.missing()
                samples.append(take(server, started, len(swarm.open()), missing, len(swarm.lives)))
                tell(samples[-1])
        faults = judging.faults(samples)
        published, lost = _losses(nats.url, swarm)
        faults += lost
        faults += _told_off(swarm)
        faults += _totals(server, swarm)
        faults += _left_behind(server, swarm)
        return Result(samples, published, swarm.messages(), faults)


def _churn(population: Population, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        step = min(_STEP_SECONDS, left)
        time.sleep(step)
        population.step(step)


def _losses(url: str, swarm: Swarm) -> tuple[int, list[str]]:
    """How many messages there were, and which did not come as they should."""
    # One more on each channel, so that whoever subscribed last has something to wait for.
    ledger.publish(url, [(channel, b"{}") for channel in CHANNELS])
    truth = ledger.read(url)
    found = []
    try:
        wait_for(lambda: truth.reached(swarm), _LAST_SECONDS, "the last message everywhere")
    except AssertionError as error:
        found.append(str(error))
    slack_seconds = _SLACK_SECONDS + max(swarm.delays_ms, default=0) / 1000
    found += _some("lost", truth.faults(swarm.stretches(), slack_seconds=slack_seconds))
    found += _some("problems", swarm.problems())
    return len(truth), found


def _some(what: str, found: list[str]) -> list[str]:
    return [f"{len(found)} {what}: {'; '.join(found[:_SHOWN])}"] if found else []


def _told_off(swarm: Swarm) -> list[str]:
    """Whom the server said goodbye to."""
    codes = swarm.close_codes()
    return [f"{codes[code]} clients were closed with {code}" for code in codes if code not in _EXPECTED_CODES]


def _totals(server: Server, swarm: Swarm) -> list[str]:
    """What the server itself says went wrong."""
    stats = server.json("/stats")
    counts = {
        "messages shed": stats["fan_out"]["shed"],
        **{f"feed {name}": stats["feed"][name] for name in ("overflow", "gaps", "invalid")},
    }
    found = [f"{count} {what}" for what, count in counts.items() if count]
    if stats["accepted"] != len(swarm.lives):
        found.append(f"{stats['accepted']} of {len(swarm.lives)} connections were accepted")
    if not stats["reconciliation"]["runs"]:
        found.append("nothing was ever reconciled")
    return found


def _left_behind(server: Server, swarm: Swarm) -> list[str]:
    """What is still counted when everybody has left."""
    swarm.disconnect(list(swarm.now))
    swarm.settle()
    counts: dict[str, int] = {}

    def nothing() -> bool:
        stats = server.json("/stats")
        counts.update(
            shared=stats["connections"],
            subscriptions=stats["subscriptions"],
            members=sum(
                shard["connections"] for worker in stats["workers"] for shard in worker["details"]["shards"]
            ),
            sockets=established(server.port),
            unclosed=stats["accepted"] - sum(stats["closed"].values()),
        )
        return not any(counts.values())

    try:
        wait_for(nothing, _LAST_SECONDS, "zero everywhere")
    except AssertionError:
        return [f"left behind: {counts}"]
    return []
