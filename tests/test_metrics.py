"""`odinws.metrics`: the exposition is one that Prometheus reads, says what the shared state says."""

from __future__ import annotations

import ctypes
import itertools
import platform
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric as Family
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

import odinws
from odinws import metrics
from odinws.assignment import Assignment
from odinws.cli import cli
from odinws.close_codes import LOAD_REFUSALS
from odinws.metrics import catalogue
from odinws.metrics.collector import StatsCollector
from odinws.metrics.text import text
from odinws.settings import Settings
from odinws.shared import SharedState
from odinws.shared.counters import CLOSES, Counters
from odinws.shared.fields import UNITS, Counter, Histogram, Info
from odinws.shared.worker_stats import WorkerStats
from tests.fakes import fill
from tests.prometheus import promtool
from tests.seen import seen

ROOT = Path(__file__).parents[1]

SETTINGS = Settings.from_environ(
    {"WS_CPU_LIMIT": "1.5", "WS_MAX_CONNECTIONS": "123", "WS_MEMORY_LIMIT": "2000000", "WS_NUM_SHARDS": "4"}
)

ASSIGNMENTS = (
    Assignment("sync-dict", "sync-dict", "targeting_match"),
    Assignment("fnv-sharded", "wide", "targeting_match"),
)
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

WORKER = {"shards": "4", "shard_key": "channel"}
# Of a worker's stats, what is no figure for Prometheus by itself.
NOT_SHOWN = {
    *("pid", "started_at", "sampled_at", "recycling", "drained", "pending"),
    *("group_cpu_percent", "group_memory_percent"),
    *("ordinal", "strategy", "variant", "reason", "flags_broken"),
}
LOCK = {
    "acquisitions": 5,
    "waits": 3,
    "wait_seconds": 0.25,
    "longest_wait_seconds": 0.2,
    "longest_hold_seconds": 0.1,
}
SHARD = {"index": 0, "connections": 1, "channels": 2, "subscriptions": 3, "lock": LOCK}


def key(name: str, /, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    """A sample's name and labels; to Prometheus an empty one is none."""
    return name, frozenset(label for label in labels.items() if label[1])


def scrape(shared: SharedState, settings: Settings = SETTINGS) -> Samples:
    """All samples of an exposition, as Prometheus's own parser reads them; none comes twice."""
    body, content_type = metrics.exposition(shared, settings, seen(shared, settings))
    assert content_type.startswith("text/plain; version=0.0.4")
    samples: Samples = {}
    for family in text_string_to_metric_families(body.decode()):
        assert family.documentation
        for sample in family.samples:
            found = key(sample.name, **sample.labels)
            assert found not in samples
            samples[found] = sample.value
    return samples


def shared_with_workers() -> SharedState:
    """Two workers, each field with a value of its own, and one that is gone."""
    shared = SharedState(4096)
    numbers = itertools.count(1)
    for slot in range(3):
        stats = shared.workers[shared.claim()]
        stats.pid, stats.sampled_at = 100 + slot, time.monotonic()
        for metric in catalogue.ROW:
            if metric.values:
                for index in range(metric.length):
                    getattr(stats, metric.field)[index] = next(numbers)
            else:
                setattr(stats, metric.field, next(numbers))
        fill(stats.totals, numbers)
    shared.retire(2)
    return shared


def two_assignments() -> SharedState:
    """The same, each of the workers with an assignment of its own."""
    shared = shared_with_workers()
    for stats, assignment in zip(shared.workers, ASSIGNMENTS, strict=False):
        stats.assignment = assignment
    return shared


def of_worker(slot: int) -> dict[str, str]:
    """The labels of a worker of `two_assignments`."""
    return {"worker": str(slot), "shards": "4", "shard_key": "channel", **ASSIGNMENTS[slot].labels()}


def test_every_gauge_of_every_worker() -> None:
    """One sample per worker that runs, with the strategy in its labels."""
    shared = two_assignments()
    samples = scrape(shared)
    for metric in catalogue.ROW:
        for slot in (0, 1):
            value, labels = getattr(shared.workers[slot], metric.field), of_worker(slot)
            if not metric.values:
                assert samples[key(metric.name, **labels)] == value
                continue
            for own, one in zip(metric.elements, value, strict=True):
                named = dict(zip(metric.labels, own, strict=False))
                assert samples[key(metric.name, **named, **labels)] == one
        assert sum(found == metric.name for found, _ in samples) == 2 * max(1, metric.length)
    for slot in (0, 1):
        assert samples[key("ws_worker_info", place=str(slot), **of_worker(slot))] == 1


def test_every_counter_is_the_boards_total() -> None:
    """Sums of the whole server, workers that are gone included; an array has an element for each reason."""
    shared = shared_with_workers()
    samples, totals = scrape(shared), shared.totals()
    for metric in catalogue.TOTALS:
        if not isinstance(metric, Counter):
            continue
        value = getattr(totals, metric.field)
        names = [name for name in metric.labels if name not in catalogue.PART_LABELS]
        if not names:
            assert samples[key(metric.shown_name)] == value
            continue
        for values, count in zip(metric.elements, value, strict=True):
            labels = dict(zip(names, values, strict=True))
            assert samples[key(metric.shown_name, **labels)] == count


def test_counters_of_each_assignment() -> None:
    """What workers of an assignment counted, and those that are gone: a replaced one takes nothing along."""
    shared = two_assignments()
    before = {assignment: shared.counters_by_assignment()[assignment].delivered for assignment in ASSIGNMENTS}
    shared.retire(0)
    samples = scrape(shared)
    for assignment in ASSIGNMENTS:
        labels = assignment.labels()
        assert samples[key("ws_messages_delivered_total", **labels)] == before[assignment]
        assert samples[key("ws_delivery_lag_seconds_count", **labels)] == sum(
            shared.counters_by_assignment()[assignment].lag
        )
        assert key("ws_connections_refused_total", reason="cpu", **labels) in samples


@pytest.mark.parametrize(
    "metric", [m for m in catalogue.TOTALS if isinstance(m, Histogram)], ids=lambda metric: metric.name
)
def test_every_histogram_is_the_boards(metric: Histogram) -> None:
    """Buckets hold what is up to their bound, the last one all; there is no label."""
    shared = shared_with_workers()
    samples, totals = scrape(shared), shared.totals()
    heights = {
        float(dict(labels)["le"]): value
        for (sample, labels), value in samples.items()
        if sample == metric.name + "_bucket"
    }
    own = list(getattr(totals, metric.field))
    bounds = (*metric.bounds, float("inf"))
    assert heights == {bound: sum(own[: index + 1]) for index, bound in enumerate(bounds)}
    assert samples[key(metric.name + "_count")] == sum(own)
    total = getattr(totals, metric.sum_field)
    total = sum(total) if isinstance(total, ctypes.Array) else total
    assert samples[key(metric.name + "_sum")] == total


def test_nothing_of_the_board_is_left_out() -> None:
    """Each field of the totals and of a row has its family, but what a family is made of otherwise."""
    shown = {metric.field for metric in catalogue.TOTALS}
    sums = {metric.sum_field for metric in catalogue.TOTALS if isinstance(metric, Histogram)}
    assert shown | sums == {name for name, *_ in Counters._fields_}
    assert {metric.field for metric in catalogue.ROW} == {
        name for name, *_ in WorkerStats._fields_ if name != "totals"
    } - NOT_SHOWN


def test_the_collector_yields_what_the_catalogue_lists() -> None:
    """The same names in kind and text, with the same labels: so the page is about what is there."""
    shared = shared_with_workers()
    shared.publish_details(
        0, {"shards": [{"connections": 1, "channels": 2, "subscriptions": 3, "lock": LOCK}]}
    )
    body = metrics.exposition(shared, SETTINGS, seen(shared, SETTINGS))[0].decode()
    listed = {metric.name: metric for part in catalogue.SECTIONS.values() for metric in part}
    found = {family.name.removesuffix("_info"): family for family in text_string_to_metric_families(body)}
    assert found.keys() == listed.keys()
    for name, metric in listed.items():
        family = found[name]
        assert family.documentation == metric.text
        assert family.type == ("gauge" if isinstance(metric, Info) else metric.kind)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels)
    assert {label for metric in listed.values() for label in metric.labels} == set(catalogue.LABELS)


def test_shards() -> None:
    """Each shard of each worker; what the slot's last worker counted is in the counters, and only there."""
    shared = shared_with_workers()
    inherited = [{"acquisitions": 100, "waits": 10, "wait_seconds": 1.0}]
    shards = [SHARD, {**SHARD, "index": 1, "lock": None}]
    shared.publish_details(0, {"shards": shards, "inherited": inherited})
    samples = scrape(shared)
    assert samples[key("ws_shard_subscriptions", worker="0", shard="1")] == 3
    assert samples[key("ws_shard_lock_longest_hold_seconds", worker="0", shard="0")] == 0.1
    assert samples[key("ws_shard_lock_waits_total", worker="0", shard="0")] == 13
    assert samples[key("ws_shard_lock_wait_seconds_total", worker="0", shard="0")] == 1.25
    assert key("ws_shard_lock_waits_total", worker="0", shard="1") not in samples


def test_workers() -> None:
    """How many run, how old they are, and how long ago they were seen."""
    shared = shared_with_workers()
    shared.workers[0].sampled_at = shared.workers[0].started_at
    shared.publish_details(1, {"feed": {"mode": "jetstream"}})
    samples = scrape(shared)
    assert samples[key("ws_workers")] == 2
    assert samples[key("ws_worker_starts_total")] == 3
    for slot in "01":
        assert 0 <= samples[key("ws_worker_silence_seconds", worker=slot, **WORKER)] < 60
        assert 0 <= samples[key("ws_worker_uptime_seconds", worker=slot, **WORKER)] < 60
        assert samples[key("ws_feed_jetstream", worker=slot, **WORKER)] == int(slot)


def test_settings_are_shown_without_texts() -> None:
    """Numbers, choices and yes or no; no text, as it may hold a secret, a path or an address."""
    samples = scrape(SharedState(4096))
    shown = {
        dict(labels)["name"]: dict(labels)["value"] for name, labels in samples if name == "ws_setting_info"
    }
    assert (shown["WS_NUM_SHARDS"], shown["WS_CPU_LIMIT"], shown["WS_COMPRESSION"]) == ("4", "1.5", "True")
    assert shown["WS_SLOW_POLICY"] == "disconnect"
    assert not shown.keys() & {"WS_JWT_SECRET", "WS_ADMIN_TOKEN", "NATS_TOKEN", "NATS_URL", "WS_JWKS_FILE"}


def test_promtool_finds_nothing_to_say() -> None:
    """Prometheus's own linter: units, suffixes, help texts."""
    shared = shared_with_workers()
    shared.publish_details(
        0, {"shards": [{"connections": 1, "channels": 2, "subscriptions": 3, "lock": LOCK}]}
    )
    body = metrics.exposition(shared, SETTINGS, seen(shared, SETTINGS))[0]
    assert promtool("check", "metrics", stdin=body) == ""


def test_the_page_is_that_of_the_code() -> None:
    """`python -m odinws metrics > docs/metrics.md` changes nothing."""
    assert CliRunner().invoke(cli, ["metrics"]).output == (ROOT / "docs" / "metrics.md").read_text()


def test_limits_and_build() -> None:
    """What a dashboard needs to draw the limits, and which version and strategy runs."""
    samples = scrape(SharedState(4096))
    assert samples[key("ws_connections_limit")] == 123
    assert samples[key("ws_cpu_limit_cores")] == 1.5
    assert samples[key("ws_memory_limit_bytes")] == 2_000_000
    labels = {
        "version": odinws.__version__,
        "python": platform.python_version(),
        "environment": "development",
        "strategy": "sync-dict",
        "shards": "4",
        "shard_key": "channel",
    }
    assert samples[key("ws_build_info", **labels)] == 1


def test_an_empty_board_has_all_counters_at_zero() -> None:
    """Counters exist from the start, so that their first rise is seen."""
    samples = scrape(SharedState(4096))
    for metric in catalogue.TOTALS:
        found = [value for (name, _), value in samples.items() if name.startswith(metric.name)]
        assert found
        assert not any(found)
    assert sum(name == "ws_connections_closed_total" for name, _ in samples) == len(CLOSES)


def test_names() -> None:
    """Every name begins with `ws_` and is one that Prometheus takes."""
    for name, _ in scrape(shared_with_workers()):
        assert re.fullmatch(r"ws_[a-z]+(_[a-z]+)*", name)


def test_the_unit_of_a_metric() -> None:
    """The end of its name says it; what is counted in something else has none."""
    units = {metric.name: metric.unit for part in catalogue.SECTIONS.values() for metric in part}
    assert set(units.values()) == {"", *UNITS}
    assert units["ws_delivery_lag_seconds"] == units["ws_gc_seconds"] == "seconds"
    assert units["ws_memory_rss_bytes"] == "bytes"
    assert units["ws_gc_collected_objects"] == units["ws_bytes_delivered"] == ""


@pytest.mark.parametrize("environment", ['quo"te', "back\\slash", "new\nline", "ünï", "{}"])
def test_labels_are_escaped(environment: str) -> None:
    """Whatever the deployment is called, the exposition stays readable."""
    samples = scrape(SharedState(4096), Settings.from_environ({"ENVIRONMENT": environment}))
    assert [dict(labels)["environment"] for name, labels in samples if name == "ws_build_info"] == [
        environment
    ]


def test_what_admission_goes_by() -> None:
    """Each resource with its value, its threshold, its pressure and its health; and the rate."""
    shared = shared_with_workers()
    for stats in shared.workers[:2]:
        stats.cpu_cores, stats.hub_lag_seconds, stats.greenlets, stats.rss_bytes = 0.6, 0.0, 0, 0
    samples = scrape(shared)
    assert samples[key("ws_admission_value", resource="cpu")] == pytest.approx(80.0)
    assert samples[key("ws_admission_threshold", resource="cpu")] == 75.0
    assert samples[key("ws_admission_healthy", resource="cpu")] == 0
    assert samples[key("ws_admission_headroom_ratio", resource="cpu")] == 0
    assert samples[key("ws_admission_headroom_ratio", resource="greenlets")] == 1
    assert samples[key("ws_admission_blocked", resource="cpu")] == 0
    assert 0 < samples[key("ws_admission_pressure", resource="cpu")] < 1
    assert 10 < samples[key("ws_admission_rate")] < 200
    for reason in LOAD_REFUSALS:
        assert key("ws_admission_pressure", resource=reason) in samples


# -- the text --------------------------------------------------------------------------------------

words = st.text(st.sampled_from('ab\\"\n ü{}=,'), max_size=12)
values = st.floats() | st.integers(0, 1 << 62).map(float)
labels = st.dictionaries(st.sampled_from(["worker", "le", "reason", "a"]), words, max_size=4)


@given(
    kind=st.sampled_from(["counter", "gauge", "info", "histogram"]),
    documentation=words,
    samples=st.lists(st.tuples(st.sampled_from(["", "_total", "_bucket", "_sum", "_info"]), labels, values)),
)
def test_the_text_is_that_of_prometheus_client(
    kind: str, documentation: str, samples: list[tuple[str, dict[str, str], float]]
) -> None:
    """Byte for byte, whatever labels, words and numbers are."""
    family = Family("ws_some", documentation, kind)
    for end, names, value in samples:
        family.add_sample(f"ws_some{end}", names, value)
    other = Family("ws_other_seconds", "Another.", "gauge")
    other.add_sample("ws_other_seconds", {}, 1)
    registry = SimpleNamespace(collect=lambda: [family, other])
    assert text([family, other]) == generate_latest(cast(Any, registry))


def test_the_whole_is_that_of_prometheus_client() -> None:
    """All families of a server; their names are those that any Prometheus takes."""
    shared = two_assignments()
    families = list(StatsCollector(shared, SETTINGS, seen(shared, SETTINGS), lambda: None).collect())
    assert text(families) == generate_latest(cast(Any, SimpleNamespace(collect=lambda: families)))
    for family in families:
        assert re.fullmatch("ws_[a-z0-9_]+", family.name)
        assert all(re.fullmatch("[a-z_]+", name) for sample in family.samples for name in sample.labels)
