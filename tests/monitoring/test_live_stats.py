"""`odinws.monitoring.live_stats`: the shared state in few words, with every worker's strategy and shards."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import odinws
from odinws.assignment import Assignment
from odinws.close_codes import REFUSALS
from odinws.feed.status import FeedStatus
from odinws.monitoring import live_stats
from odinws.settings import Settings
from odinws.shared import SharedState
from odinws.shared.counters import CLOSES
from odinws.shared.recent import KINDS, Moment
from tests.seen import seen

SETTINGS = Settings.from_environ({"WS_WORKERS": "2", "WS_SHARD_STRATEGY": "single-lock"})
LOCK = {
    "acquisitions": 10,
    "waits": 2,
    "wait_seconds": 0.5,
    "longest_wait_seconds": 0.25,
    "longest_hold_seconds": 0.01,
}


def shard(index: int, subscriptions: int, lock: dict[str, Any] | None) -> dict[str, Any]:
    """A shard as a worker publishes it."""
    return {
        "index": index,
        "connections": 1,
        "channels": 2,
        "subscriptions": subscriptions,
        "lock": lock,
    }


def shared(*details: dict[str, Any]) -> SharedState:
    """A server whose workers have published these."""
    made = SharedState()
    for number, one in enumerate(details, 1):
        slot = made.claim()
        stats = made.workers[slot]
        stats.pid, stats.accepting, stats.feed_ready, stats.connections = 100 + number, 1, 1, 10 * number
        stats.totals.delivered = 1000 * number
        stats.refused_by("rate")
        stats.assignment = Assignment(one.get("strategy", ""))
        made.publish_details(slot, one)
    return made


def collect(made: SharedState, settings: Settings = SETTINGS, *, whole: bool = False) -> dict[str, Any]:
    """The figures as a watcher reads them."""
    state = seen(made, settings)
    told = live_stats.collect(made, settings, 0, FeedStatus(ready=True, mode="jetstream"), state, whole)
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(told))
    return found


def test_each_worker_has_its_own_strategy() -> None:
    """As it stands in its row; before that, that of the settings."""
    found = collect(shared({"strategy": "sync-dict"}, {}))
    assert [worker["strategy"] for worker in found["workers"]] == ["sync-dict", "single-lock"]
    assert [one["name"] for one in found["strategies"]] == ["single-lock", "sync-dict"]


def test_workers_and_sums() -> None:
    """Counts of each worker, and of all; a difference of two readings is a rate."""
    found = collect(shared({}, {}))
    assert found["connections"] == 30
    assert found["fan_out"]["delivered"] == 3000
    assert found["refused"]["rate"] == 2
    assert [worker["delivered"] for worker in found["workers"]] == [1000, 2000]
    assert found["health"] == {"status": "healthy", "problems": []}


def test_shards_of_one_strategy_are_added_up() -> None:
    """Those of the same index, over its workers; of waits also the longest."""
    lock = {**LOCK, "longest_wait_seconds": 0.75}
    found = collect(
        shared(
            {"strategy": "fnv-sharded", "shards": [shard(0, 3, LOCK), shard(1, 4, LOCK)]},
            {"strategy": "fnv-sharded", "shards": [shard(0, 5, lock), shard(1, 0, LOCK)]},
        )
    )
    [one] = found["strategies"]
    assert one["shards"] == {
        "connections": [2, 2],
        "channels": [4, 4],
        "subscriptions": [8, 4],
        "acquisitions": [20, 20],
        "waits": [4, 4],
        "wait_seconds": [1.0, 1.0],
        "longest_wait_seconds": [0.75, 0.25],
        "longest_hold_seconds": [0.01, 0.01],
    }


def test_without_locks_none_is_told() -> None:
    """A strategy that takes none has no waits, rather than zeros."""
    [one] = collect(shared({"strategy": "sync-dict", "shards": [shard(0, 3, None)]}))["strategies"]
    assert one["shards"] == {"connections": [1], "channels": [2], "subscriptions": [3]}


@pytest.mark.parametrize("count", [1, 63, 64, 65, 1024])
def test_many_shards_are_told_in_groups(count: int) -> None:
    """The message stays short, and the sums stay right."""
    shards = [shard(index, index, LOCK) for index in range(count)]
    [one] = collect(shared_of_many(shards))["strategies"]
    subscriptions = one["shards"]["subscriptions"]
    assert len(subscriptions) == math.ceil(count / math.ceil(count / live_stats.MOST_SHARDS))
    assert sum(subscriptions) == sum(range(count))
    assert sum(one["shards"]["waits"]) == 2 * count


def shared_of_many(shards: list[dict[str, Any]]) -> SharedState:
    """One worker with room for all of them."""
    made = SharedState(1 << 20)
    slot = made.claim()
    made.workers[slot].pid = 1
    made.workers[slot].assignment = Assignment("fnv-sharded")
    made.publish_details(slot, {"strategy": "fnv-sharded", "shards": shards})
    return made


def test_details_that_were_cut_short_hide_no_worker() -> None:
    """They did not fit in the shared state, or are none yet."""
    found = collect(shared({"truncated": 99}))
    assert found["workers"][0]["connections"] == 10
    assert found["strategies"] == [
        {"name": "single-lock", "shards": {"connections": [], "channels": [], "subscriptions": []}}
    ]


def test_the_timeline_is_told_whole_once() -> None:
    """To who has none of it; after that its last seconds are enough, also where a reading was missed."""
    made = shared({})
    for second in range(20):
        made.timeline.add(1000 * second, {})
    assert [one["at"] for one in collect(made, whole=True)["timeline"]] == [1000 * n for n in range(20)]
    assert [one["at"] for one in collect(made)["timeline"]] == [1000 * n for n in range(15, 20)]


# -- what the page reads ---------------------------------------------------------------------------

PAGE = Path(odinws.__file__).with_name("dashboard")
# By file: what its variables stand for in the figures; of a list, for one of its elements.
VARIABLES: dict[str, dict[str, tuple[str, ...]]] = {
    "events.js": {
        "data": (),
        "old": (),
        "worker": ("workers",),
        "before": ("workers",),
        "event": ("events",),
    },
    "figures.js": {"data": (), "worker": ("workers",), "old": ("workers",)},
    "page.js": {"data": (), "health": ("health",)},
    "panels.js": {
        "data": (),
        "worker": ("workers",),
        "strategy": ("strategies",),
        "shards": ("strategies", "shards"),
        "feed": ("feed",),
        "recovery": ("recovery",),
    },
}
OF_LISTS = {"find", "map", "filter", "some", "join", "length"}  # of JavaScript
# Where it takes figures apart: `const { health, uptime_seconds: uptime } = own.now.data`.
TAKEN_APART = (
    r"\{([^=;]*)\} = own\.now\.data",
    r"data: \{([^}]*)\}",
    r'byId\("feed"\), sources, \(\{(.*)\}\) =>',
)


def read_by_page() -> Iterator[tuple[str, ...]]:
    """The paths that the page's code reads; behind a number or a text the rest is JavaScript's own."""
    for name, variables in VARIABLES.items():
        code = re.sub(r"//.*|/\*[\s\S]*?\*/", "", (PAGE / name).read_text())
        for variable, path in variables.items():
            before = r"\b" if variable == "data" else r"(?<![.\w])"  # as in `source.now?.data`
            for found in re.finditer(rf"{before}{variable}\??((?:\.\w+\??)+)", code):
                yield (*path, *found[1].replace("?", "").split(".")[1:])
        for pattern in TAKEN_APART:
            for found in re.finditer(pattern, code):
                inner = re.search(r"(\w+): \{(.*)\}", found[1])
                if inner:
                    yield from ((inner[1], member) for member in re.findall(r"\w+", inner[2]))
                for member in re.sub(r"\{.*\}", "", found[1]).split(","):
                    yield (member.partition(":")[0].strip(),)
        for field in re.findall(r'renderReasons\("\w+", "(\w+)"', code):
            yield (field,)


def names_in(constant: str, code: str) -> set[str]:
    """The keys of a constant of the page."""
    found = re.search(rf"const {constant} = \{{([^}}]*)\}}", code)
    assert found
    return set(re.findall(r"(\w+): \"", found[1]))


def test_the_page_reads_what_is_there() -> None:
    """Each member that its code names is one of the figures."""
    made = shared({"strategy": "fnv-sharded", "shards": [shard(0, 3, LOCK)], "feed": {"mode": "jetstream"}})
    made.event_log.add("debug", "something")
    made.timeline.add(1000, {})
    paths = set(read_by_page())
    for path in paths:
        value: Any = collect(made, whole=True)
        for step in path:
            if isinstance(value, list) and step not in OF_LISTS:
                value = value[0]
            if not isinstance(value, dict):
                break
            assert step in value, path
            value = value[step]
    assert {("fan_out", "gaps"), ("feed", "redelivered"), ("started_at",), ("closed",)} <= paths
    assert {("strategies", "shards", "wait_seconds"), ("workers", "feed", "ready"), ("version",)} <= paths


def test_the_page_has_words_for_what_is_there() -> None:
    """For each reason and each kind of event, and for no other."""
    panels, events = (PAGE / "panels.js").read_text(), (PAGE / "events.js").read_text()
    assert names_in("REASONS", panels) == set(REFUSALS)
    assert names_in("ENDS", panels) == {reason.label for reason in CLOSES}
    assert names_in("KINDS", events) <= set(KINDS)


def test_the_charts_are_of_the_timeline() -> None:
    """Each line is one figure of a sample, and each of them has a line."""
    keys = re.findall(r'key: "(\w+)"', (PAGE / "page.js").read_text())
    assert sorted(keys) == sorted(Moment._fields)
