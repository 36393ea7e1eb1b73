"""`odinws.monitoring.report`: the shape of `/health`, what makes it degraded or unhealthy, who is ready."""

from __future__ import annotations

import ctypes
import itertools
import json
import math
import time
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odinws.assignment import Assignment
from odinws.close_codes import REFUSALS, CloseReason
from odinws.feed.status import FeedStatus
from odinws.histogram import quantile
from odinws.monitoring import report
from odinws.settings import Settings
from odinws.shared import SharedState
from odinws.shared.counters import LAG_BOUNDS_SECONDS, STALL_BOUNDS_SECONDS, Counters
from tests.fakes import fill
from tests.seen import seen

SETTINGS = Settings.from_environ(
    {
        "WS_WORKERS": "2",
        "WS_MAX_CONNECTIONS": "10",
        "WS_CPU_LIMIT": "2",
        "WS_CPU_REJECT_THRESHOLD": "75",
        "WS_MEMORY_LIMIT": str(100 << 20),
        "WS_MAX_GREENLETS": "200",
    }
)

HEALTH = {  # each member of `/health`, and its type
    "status": str,
    "healthy": bool,
    "checks": {
        "nats": {"status": str, "healthy": bool, "mode": str, "epoch": str, "problem": str},
        "capacity": {"current": int, "max": int, "percentage": float, "healthy": bool},
        "cpu": {"percentage": float, "threshold": float, "healthy": bool},
        "memory": {
            "used_mb": float,
            "limit_mb": float,
            "percentage": float,
            "healthy": bool,
            "clients_mb": float,
            "clients_limit_mb": float,
        },
        "greenlets": {"current": int, "limit": int, "percentage": float, "healthy": bool},
        "hub_lag": {"milliseconds": float, "threshold": float, "healthy": bool},
        "limits": {
            "max_connections": int,
            "max_subscriptions": int,
            "max_message_bytes": int,
            "command_rate": float,
            "outbox_bytes": int,
            "cpu_limit": float,
            "workers": int,
        },
    },
    "warnings": list,
    "errors": list,
    "uptime": float,
}


def fed() -> FeedStatus:
    """A feed that is up."""
    return FeedStatus(ready=True, mode="jetstream", epoch="ODIN_TOKENS-1", problem="")


def serving() -> SharedState:
    """Two workers that serve three clients each."""
    shared = SharedState(4096)
    for pid in (101, 102):
        stats = shared.workers[shared.claim()]
        stats.pid, stats.accepting, stats.feed_ready, stats.sampled_at = pid, 1, 1, time.monotonic()
        stats.connections, stats.subscriptions, stats.greenlets = 3, 7, 9
        stats.rss_bytes, stats.cpu_cores, stats.totals.cpu_seconds = 20 << 20, 0.25, 12.5
        stats.client_memory_bytes = 3 << 19
    return shared


def health(shared: SharedState, feed: FeedStatus | None = None) -> dict[str, Any]:
    """`/health`, whose status and flags always agree."""
    body = report.health(shared, SETTINGS, feed or fed(), seen(shared, SETTINGS))
    assert body["healthy"] is not bool(body["errors"])
    expected = "unhealthy" if body["errors"] else "degraded" if body["warnings"] else "healthy"
    assert body["status"] == expected
    return body


def shape(value: Any) -> Any:
    """Members and types of a body."""
    return {name: shape(member) for name, member in value.items()} if isinstance(value, dict) else type(value)


# -- health ----------------------------------------------------------------------------------------


def test_health_has_exactly_its_members() -> None:
    """The predecessor's form, which dashboards rely on; all of it is JSON."""
    body = health(serving())
    assert shape(body) == HEALTH
    assert json.loads(json.dumps(body, allow_nan=False)) == body


def test_the_shape_is_the_same_before_anyone_runs() -> None:
    """A dashboard that asks early reads the same members."""
    assert shape(health(SharedState(4096), FeedStatus())) == HEALTH


def test_a_serving_server_is_healthy() -> None:
    """Sums over all workers, against the limits."""
    body = health(serving())
    assert body["status"] == "healthy"
    assert (body["warnings"], body["errors"]) == ([], [])
    checks = body["checks"]
    assert checks["nats"] == {
        "status": "connected",
        "healthy": True,
        "mode": "jetstream",
        "epoch": "ODIN_TOKENS-1",
        "problem": "",
    }
    assert checks["capacity"] == {"current": 6, "max": 10, "percentage": 60.0, "healthy": True}
    assert checks["cpu"] == {"percentage": 25.0, "threshold": 75.0, "healthy": True}
    assert checks["memory"] == {
        "used_mb": 40.0,
        "limit_mb": 100.0,
        "percentage": 40.0,
        "healthy": True,
        "clients_mb": 3.0,
        "clients_limit_mb": 25.0,
    }
    assert checks["greenlets"] == {"current": 18, "limit": 200, "percentage": 9.0, "healthy": True}
    assert 0 <= body["uptime"] < 60


def _full(shared: SharedState) -> None:
    shared.workers[0].connections = 7


def _busy(shared: SharedState) -> None:
    shared.workers[0].cpu_cores = 1.3


def _fat(shared: SharedState) -> None:
    shared.workers[0].rss_bytes = 71 << 20


def _crowded(shared: SharedState) -> None:
    shared.workers[0].greenlets = 192


def _slow(shared: SharedState) -> None:
    shared.workers[0].hub_lag_seconds = 0.251


def _failing(shared: SharedState) -> None:
    shared.tell_start("no keys")


def _one_left(shared: SharedState) -> None:
    shared.retire(1)


@pytest.mark.parametrize(
    ("change", "check", "warning"),
    [
        (_full, "capacity", "capacity: all 10 connections are taken"),
        (_busy, "cpu", "CPU 77.5% > 75.0%"),
        (_fat, "memory", "memory 91.0% > 90.0%"),
        (_crowded, "greenlets", "greenlets 201 > 180"),
        (_slow, "hub_lag", "hub lag 251.0ms > 250.0ms"),
        (_one_left, None, "1 of 2 workers run"),
        (_failing, None, "a worker can't start: no keys"),
    ],
)
def test_what_degrades(change: Callable[[SharedState], None], check: str | None, warning: str) -> None:
    """It works and wants a look: one warning, one check that is not healthy, and still healthy as a whole."""
    shared = serving()
    change(shared)
    body = health(shared)
    assert (body["status"], body["healthy"], body["warnings"]) == ("degraded", True, [warning])
    bad = [name for name, found in body["checks"].items() if found.get("healthy") is False]
    assert bad == ([check] if check else [])


def test_just_below_is_healthy() -> None:
    """What stands at its threshold is no reason to warn."""
    shared = serving()
    stats = shared.workers[0]
    stats.connections, stats.cpu_cores, stats.rss_bytes, stats.greenlets = 6, 1.25, 70 << 20, 171
    assert health(shared)["status"] == "healthy"


def test_the_cpu_check_can_be_switched_off() -> None:
    """A threshold of 100 never warns."""
    shared = serving()
    shared.workers[0].cpu_cores = 50.0
    settings = Settings.from_environ(
        {"WS_WORKERS": "2", "WS_CPU_REJECT_THRESHOLD": "100", "WS_CPU_LIMIT": "2"}
    )
    body = report.health(shared, settings, fed(), seen(shared, settings))
    assert body["checks"]["cpu"]["healthy"]
    assert body["status"] == "healthy"


@pytest.mark.parametrize(
    ("feed", "warning"),
    [
        (FeedStatus(ready=True, mode="core", problem=""), "no JetStream"),
        (
            FeedStatus(ready=True, mode="jetstream", problem="", stream_differs="max_msgs is 1, not 2"),
            "stream ODIN_TOKENS differs from the settings: max_msgs is 1, not 2",
        ),
    ],
)
def test_a_feed_that_is_not_as_wished_degrades(feed: FeedStatus, warning: str) -> None:
    """Messages flow, but not all that was asked for is there."""
    body = health(serving(), feed)
    assert body["status"] == "degraded"
    assert warning in body["warnings"][0]


def test_no_feed_is_unhealthy() -> None:
    """The worker that answers has none: clients do not get what they came for."""
    body = health(serving(), FeedStatus(problem="connection refused"))
    assert body["status"] == "unhealthy"
    assert body["errors"] == ["nats: connection refused"]
    assert body["checks"]["nats"]["status"] == "disconnected"
    assert body["checks"]["nats"]["problem"] == "connection refused"


def test_another_workers_lost_feed_is_unhealthy() -> None:
    """Whichever worker is asked, it answers for all; one that does not accept does not count."""
    shared = serving()
    shared.workers[1].feed_ready = 0
    assert health(shared)["errors"] == ["nats: a worker has no feed"]
    shared.workers[1].accepting = 0
    assert health(shared)["errors"] == []


def test_a_stuck_worker_is_unhealthy() -> None:
    """A worker that has not sampled itself for 5 s does not run; one that has not begun to is starting."""
    shared = serving()
    shared.workers[1].sampled_at = time.monotonic() - 4
    assert health(shared)["errors"] == []
    shared.workers[1].sampled_at = time.monotonic() - 6
    assert health(shared)["errors"] == ["workers [102] have not been seen for 5 s"]
    shared.workers[1].sampled_at = 0.0
    assert health(shared)["errors"] == []


def test_everything_at_once() -> None:
    """All errors and all warnings are listed."""
    shared = serving()
    for change in (_full, _busy, _fat, _crowded):
        change(shared)
    shared.workers[0].cpu_cores = 1.6  # a silent worker's does not count
    shared.workers[1].feed_ready = 0
    shared.workers[1].sampled_at = 1.0
    body = health(shared, FeedStatus(mode="core", problem="down", stream_differs="x"))
    assert body["status"] == "unhealthy"
    assert len(body["errors"]) == 2
    assert len(body["warnings"]) == 6


# -- readiness -------------------------------------------------------------------------------------


def test_a_serving_server_is_ready() -> None:
    """No reason not to send clients."""
    assert report.not_ready(serving(), SETTINGS, fed()) == []


def test_starting() -> None:
    """Not ready before all workers have accepted with a feed at one time; ready with fewer after that."""
    shared = SharedState(4096)
    assert report.not_ready(shared, SETTINGS, FeedStatus()) == ["starting: no worker accepts yet"]
    full = serving()
    full.workers[1].accepting = 0
    assert report.not_ready(full, SETTINGS, fed()) == ["starting: not all 2 workers accept yet"]
    full.workers[1].accepting = 1
    assert report.not_ready(full, SETTINGS, fed()) == []
    full.retire(1)
    assert report.not_ready(full, SETTINGS, fed()) == []


def test_starting_without_a_feed_says_why() -> None:
    """The reason is NATS, not the start."""
    shared = serving()
    shared.workers[0].feed_ready = 0
    assert report.not_ready(shared, SETTINGS, FeedStatus(problem="refused")) == ["nats: refused"]


def test_draining() -> None:
    """A warm server whose workers do not accept any more is going away."""
    shared = serving()
    assert shared.is_warm(2)
    for stats in shared.workers[:2]:
        stats.accepting = 0
    assert report.not_ready(shared, SETTINGS, fed()) == ["draining: no worker accepts"]


def test_not_ready_without_a_feed() -> None:
    """One accepting worker without a feed is enough: it would get its share of the clients."""
    shared = serving()
    assert shared.is_warm(2)
    assert report.not_ready(shared, SETTINGS, FeedStatus(problem="refused")) == ["nats: refused"]
    shared.workers[1].feed_ready = 0
    assert report.not_ready(shared, SETTINGS, fed()) == ["nats: a worker has no feed"]


def test_not_ready_when_full() -> None:
    """A full server wants no more clients."""
    shared = serving()
    _full(shared)
    assert report.not_ready(shared, SETTINGS, fed()) == ["capacity: all 10 connections are taken"]


# -- stats -----------------------------------------------------------------------------------------


def counted() -> SharedState:
    """A serving server with counters, also of a worker that is gone."""
    shared = serving()
    gone = shared.claim()
    for index in (0, 1, gone):
        totals = shared.workers[index].totals
        totals.accepted, totals.delivered, totals.pass_seconds = 10, 1000, 0.5
        shared.workers[index].closed_by(CloseReason.SLOW)
        shared.workers[index].refused_by("capacity")
    shared.retire(gone)
    return shared


def test_stats_of_the_whole_server() -> None:
    """Sums, workers that are gone included, and which worker answered."""
    shared = counted()
    shared.workers[0].assignment = Assignment("sync-dict", "sync-dict", "default")
    shared.workers[1].assignment = Assignment("fnv-sharded", "wide", "targeting_match")
    body = report.stats(shared, SETTINGS, 1, seen(shared, SETTINGS))
    assert body["connections"] == 6
    assert body["subscriptions"] == 14
    assert body["max_connections"] == 10
    assert body["answered_by"] == 1
    assert body["accepted"] == 30
    assert body["refused"] == {**dict.fromkeys(REFUSALS, 0), "capacity": 3}
    assert body["closed"] == {**{reason.label: 0 for reason in CloseReason}, "slow": 3}
    assert body["fan_out"]["delivered"] == 3000
    assert body["fan_out"]["pass_seconds"] == 1.5
    assert body["strategy"] == {
        "name": "fnv-sharded, sync-dict",
        "variant": "sync-dict, wide",
        "reason": "default, targeting_match",
        "flags_file": "",
        "problem": "",
        "places": SETTINGS.workers,
        "choices": [
            {
                "strategy": "fnv-sharded",
                "variant": "wide",
                "reason": "targeting_match",
                "workers": 1,
                "connections": 3,
            },
            {
                "strategy": "sync-dict",
                "variant": "sync-dict",
                "reason": "default",
                "workers": 1,
                "connections": 3,
            },
        ],
        "shards": 16,
        "shard_key": "channel",
    }
    assert json.loads(json.dumps(body, allow_nan=False)) == body


def test_stats_of_each_worker() -> None:
    """Each row that runs, with its own totals and the details that it published."""
    shared = counted()
    shared.publish_details(1, {"shards": [1, 2]})
    first, second = report.stats(shared, SETTINGS, 0, seen(shared, SETTINGS))["workers"]
    assert (first["slot"], first["pid"], second["slot"], second["pid"]) == (0, 101, 1, 102)
    assert (first["details"], second["details"]) == ({}, {"shards": [1, 2]})
    assert first["accepted"] == 10
    assert first["cpu_cores"] == 0.25
    assert first["rss_bytes"] == 20 << 20
    assert 0 <= first["uptime_seconds"] < 60
    assert set(first) == set(second)


def test_totals_in_words_leave_nothing_out() -> None:
    """Each field of the totals, and each element of an array, appears once."""
    sums = Counters()
    fill(sums, itertools.count(1))
    filled = sum(
        len(value) if isinstance(value := getattr(sums, name), ctypes.Array) else 1
        for name, *_ in Counters._fields_
    )

    def leaves(value: Any) -> list[float]:
        if isinstance(value, dict):
            return [leaf for member in value.values() for leaf in leaves(member)]
        return value if isinstance(value, list) else [value]

    body = report.words(sums)
    del (
        body["fan_out"]["frames"]["bounds"],
        body["fan_out"]["times"]["sum_seconds"],
    )  # there twice
    for histogram in (body["lag"], body["stall"], body["ping"], body["fan_out"]["times"]):
        for name in [name for name in histogram if name not in ("counts", "sum_seconds")]:
            del histogram[name]  # bounds and estimates are no totals
    body["gc"]["pauses"] = body["gc"]["pauses"]["counts"]  # their sum is that of the generations
    assert sorted(leaves(body)) == list(range(1, filled + 1))


def test_histograms_in_words() -> None:
    """Bounds, counts and estimates in seconds, of the whole server and of each worker."""
    shared = serving()
    first, second = shared.workers[0], shared.workers[1]
    first.totals.lag[4], second.totals.lag[5], second.totals.lag_seconds = 98, 2, 1.5  # up to 20 and 30 ms
    second.totals.stalls[0], second.totals.stalls[11], second.totals.shed = 999, 1, 5
    body = report.stats(shared, SETTINGS, 0, seen(shared, SETTINGS))
    assert body["lag"] == {
        "bounds_seconds": list(LAG_BOUNDS_SECONDS),
        "counts": [98 if index == 4 else 2 if index == 5 else 0 for index in range(16)],
        "sum_seconds": 1.5,
        "p50_seconds": pytest.approx(0.01 + 0.01 * 50 / 98, abs=1e-6),
        "p95_seconds": pytest.approx(0.01 + 0.01 * 95 / 98, abs=1e-6),
        "p99_seconds": pytest.approx(0.02 + 0.01 * 1 / 2, abs=1e-6),
    }
    assert body["stall"]["bounds_seconds"] == list(STALL_BOUNDS_SECONDS)
    assert body["stall"]["counts"] == [999, *[0] * 10, 1, 0]
    assert body["stall"]["p99_9_seconds"] == pytest.approx(0.001)
    assert body["fan_out"]["shed"] == 5
    by_worker = body["workers"]
    assert (by_worker[0]["lag"]["p99_seconds"], by_worker[0]["fan_out"]["shed"]) == (
        pytest.approx(0.0199),
        0,
    )
    assert by_worker[0]["stall"]["p99_9_seconds"] is None
    assert (by_worker[1]["lag"]["p50_seconds"], by_worker[1]["fan_out"]["shed"]) == (pytest.approx(0.025), 5)
    assert json.loads(json.dumps(body, allow_nan=False)) == body


@pytest.mark.parametrize(
    ("counts", "share", "expected"),
    [
        ([0, 0, 0], 0.5, None),
        ([4, 0, 0], 0.5, 0.5),
        ([4, 0, 0], 1.0, 1.0),
        ([2, 2, 0], 0.5, 1.0),
        ([2, 2, 0], 0.75, 2.0),
        ([0, 4, 0], 0.25, 1.5),
        ([0, 0, 9], 0.01, 3.0),
        ([50, 49, 1], 0.999, 3.0),
    ],
)
def test_quantiles_are_estimated(counts: list[int], share: float, expected: float | None) -> None:
    """Even within a bucket, from 0 in the first; the last bound for what is above it; None for nothing."""
    assert quantile((1.0, 3.0), counts, share) == expected


@given(
    seconds=st.lists(st.floats(0, LAG_BOUNDS_SECONDS[-1]), min_size=1, max_size=200),
    share=st.floats(0.001, 1.0),
)
def test_an_estimate_is_in_the_bucket_of_the_truth(seconds: list[float], share: float) -> None:
    """The error is at most the width of the bucket that the true quantile is in."""
    counts = [0] * (len(LAG_BOUNDS_SECONDS) + 1)
    for value in seconds:
        counts[bisect_left(LAG_BOUNDS_SECONDS, value)] += 1
    truth = sorted(seconds)[max(0, math.ceil(share * len(seconds)) - 1)]
    bucket = bisect_left(LAG_BOUNDS_SECONDS, truth)
    low = LAG_BOUNDS_SECONDS[bucket - 1] if bucket else 0.0
    estimate = quantile(LAG_BOUNDS_SECONDS, counts, share)
    assert estimate is not None
    assert low - 1e-9 <= estimate <= LAG_BOUNDS_SECONDS[bucket] + 1e-9


def test_flags_that_can_not_be_used() -> None:
    """A worker's trouble with the file of flags is a warning of health, and stands in the statistics."""
    shared = serving()
    assert report.stats(shared, SETTINGS, 0, seen(shared, SETTINGS))["strategy"]["problem"] == ""
    shared.workers[1].flags_broken = 1
    assert any("see its log" in warning for warning in health(shared)["warnings"])
    shared.publish_details(1, {"flags_problem": "flags.json: not JSON"})
    assert "flags: flags.json: not JSON" in health(shared)["warnings"]
    assert report.stats(shared, SETTINGS, 0, seen(shared, SETTINGS))["strategy"]["problem"] == (
        "flags.json: not JSON"
    )
