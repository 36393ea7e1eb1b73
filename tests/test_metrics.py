"""`odinws.metrics`: the exposition is one that Prometheus reads, and says what the board says."""

from __future__ import annotations

import itertools
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

import odinws
from odinws import metrics
from odinws.board import (
    CLOSES,
    DIFFERENCES,
    LAG_BOUNDS_SECONDS,
    RECOVERIES,
    REFUSALS,
    STALL_BOUNDS_SECONDS,
    Board,
    Totals,
)
from odinws.choice import Choice
from odinws.guard import REASONS
from odinws.settings import Settings
from tests.fakes import fill
from tests.seen import seen

SETTINGS = Settings.from_environ(
    {"WS_CPU_LIMIT": "1.5", "WS_MAX_CONNECTIONS": "123", "WS_MEMORY_LIMIT": "2000000", "WS_NUM_SHARDS": "4"}
)

CHOICES = (
    Choice("sync-dict", "sync-dict", "targeting_match"),
    Choice("fnv-sharded", "wide", "targeting_match"),
)
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

GAUGES = {
    "connections": "ws_connections",
    "subscriptions": "ws_subscriptions",
    "accepting": "ws_worker_accepting",
    "feed_ready": "ws_feed_ready",
    "greenlets": "ws_greenlets",
    "hub_lag_seconds": "ws_hub_lag_seconds",
    "rss_bytes": "ws_memory_rss_bytes",
    "cpu_cores": "ws_cpu_cores",
    "hub_stall_seconds": "ws_hub_stall_longest_seconds",
    "pass_longest_seconds": "ws_pass_longest_seconds",
}
COUNTERS = {
    "accepted": "ws_connections_accepted_total",
    "commands": "ws_commands_total",
    "command_errors": "ws_command_errors_total",
    "feed_messages": "ws_feed_messages_total",
    "feed_ignored": "ws_feed_ignored_total",
    "feed_invalid": "ws_feed_invalid_total",
    "feed_overflow": "ws_feed_overflow_total",
    "feed_gaps": "ws_feed_gaps_total",
    "reconciliations": "ws_reconciliations_total",
    "replayed": "ws_messages_replayed_total",
    "rebalanced": "ws_connections_rebalanced_total",
    "feed_published": "ws_feed_published_total",
    "feed_received": "ws_feed_received_total",
    "feed_redelivered": "ws_feed_redelivered_total",
    "feed_duplicates": "ws_feed_duplicates_total",
    "feed_sessions": "ws_feed_sessions_total",
    "passes": "ws_passes_total",
    "pass_seconds": "ws_pass_seconds_total",
    "delivered": "ws_messages_delivered_total",
    "delivered_bytes": "ws_bytes_delivered_total",
    "undelivered": "ws_messages_undelivered_total",
    "shed": "ws_messages_shed_total",
    "sends": "ws_sends_total",
}
HISTOGRAMS = {  # counts, sum: bounds, name
    ("lag", "lag_seconds"): (LAG_BOUNDS_SECONDS, "ws_delivery_lag_seconds"),
    ("stalls", "stall_seconds"): (STALL_BOUNDS_SECONDS, "ws_hub_stall_seconds"),
}


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    """A sample's name and labels."""
    return name, frozenset(labels.items())


def scrape(board: Board, settings: Settings = SETTINGS) -> Samples:
    """All samples of an exposition, as Prometheus's own parser reads them; none comes twice."""
    body, content_type = metrics.exposition(board, settings, seen(board, settings))
    assert content_type.startswith("text/plain; version=0.0.4")
    samples: Samples = {}
    for family in text_string_to_metric_families(body.decode()):
        assert family.documentation
        for sample in family.samples:
            found = key(sample.name, **sample.labels)
            assert found not in samples
            samples[found] = sample.value
    return samples


def board_with_workers() -> Board:
    """Two workers, each field with a value of its own, and one that is gone."""
    board = Board(4096)
    numbers = itertools.count(1)
    for slot in range(3):
        row = board.rows[board.claim()]
        row.pid = 100 + slot
        for field in (*GAUGES, "cpu_seconds"):
            setattr(row, field, next(numbers))
        fill(row.totals, numbers)
    board.bury(2)
    return board


def two_choices() -> Board:
    """The same, each of the workers with a choice of its own."""
    board = board_with_workers()
    for row, choice in zip(board.rows, CHOICES, strict=False):
        row.choice = choice
    return board


def of_worker(slot: int) -> dict[str, str]:
    """The labels of a worker of `two_choices`."""
    return {"worker": str(slot), "shards": "4", "shard_key": "channel", **CHOICES[slot].labels()}


def test_every_gauge_of_every_worker() -> None:
    """One sample per worker that runs, with the strategy in its labels."""
    board = two_choices()
    samples = scrape(board)
    for field, name in GAUGES.items():
        for slot in (0, 1):
            assert samples[key(name, **of_worker(slot))] == getattr(board.rows[slot], field)
        assert sum(found == name for found, _ in samples) == 2
    for slot in (0, 1):
        assert samples[key("ws_cpu_seconds_total", **of_worker(slot))] == board.rows[slot].cpu_seconds
        assert samples[key("ws_worker_info", place=str(slot), **of_worker(slot))] == 1


def test_every_counter_is_the_boards_total() -> None:
    """Sums of the whole server, workers that are gone included."""
    board = board_with_workers()
    samples, totals = scrape(board), board.totals()
    for field, name in COUNTERS.items():
        assert samples[key(name)] == getattr(totals, field)
    for reason, count in zip(REFUSALS, totals.refused, strict=True):
        assert samples[key("ws_connections_refused_total", reason=reason)] == count
    for reason, count in zip(REASONS, totals.would_refuse, strict=True):
        assert samples[key("ws_connections_would_refuse_total", reason=reason)] == count
    for outcome, count in zip(RECOVERIES, totals.recovered, strict=True):
        assert samples[key("ws_channels_resumed_total", outcome=outcome)] == count
    for kind, count in zip(DIFFERENCES, totals.differences, strict=True):
        assert samples[key("ws_reconciliation_differences_total", kind=kind)] == count
    for close, count in zip(CLOSES, totals.closed, strict=True):
        labels = {"reason": close.label, "code": str(close.code)}
        assert samples[key("ws_connections_closed_total", **labels)] == count


def test_counters_of_each_choice() -> None:
    """What workers of a choice counted, also those that are gone: a replaced worker takes nothing along."""
    board = two_choices()
    before = {choice: board.totals_by_choice()[choice].delivered for choice in CHOICES}
    board.bury(0)
    samples = scrape(board)
    for choice in CHOICES:
        labels = choice.labels()
        assert samples[key("ws_messages_delivered_total", **labels)] == before[choice]
        assert samples[key("ws_delivery_lag_seconds_count", **labels)] == sum(
            board.totals_by_choice()[choice].lag
        )
        assert key("ws_connections_refused_total", reason="cpu", **labels) in samples


@pytest.mark.parametrize(("fields", "found"), HISTOGRAMS.items())
def test_every_histogram_is_the_boards(fields: tuple[str, str], found: tuple[tuple[float, ...], str]) -> None:
    """Buckets hold what is up to their bound, the last one all; the sum is in seconds; there is no label."""
    board = board_with_workers()
    samples, totals = scrape(board), board.totals()
    (counts, total), (bounds, name) = fields, found
    heights = {
        float(dict(labels)["le"]): value
        for (sample, labels), value in samples.items()
        if sample == name + "_bucket"
    }
    own = list(getattr(totals, counts))
    assert heights == {bound: sum(own[: index + 1]) for index, bound in enumerate((*bounds, float("inf")))}
    assert samples[key(name + "_count")] == sum(own) == heights[float("inf")]
    assert samples[key(name + "_sum")] == getattr(totals, total)
    body = metrics.exposition(board, SETTINGS, seen(board, SETTINGS))[0].decode()
    assert f"\n# TYPE {name} histogram\n" in body


def test_no_total_is_left_out() -> None:
    """Each field of the board's totals has its family."""
    histograms = {field for fields in HISTOGRAMS for field in fields}
    assert {*COUNTERS, *histograms, "refused", "closed", "would_refuse", "differences", "recovered"} == {
        name for name, _ in Totals._fields_
    }


def test_limits_and_build() -> None:
    """What a dashboard needs to draw the limits, and which version and strategy runs."""
    samples = scrape(Board(4096))
    assert samples[key("ws_connections_limit")] == 123
    assert samples[key("ws_cpu_limit_cores")] == 1.5
    assert samples[key("ws_memory_limit_bytes")] == 2_000_000
    labels = {
        "version": odinws.__version__,
        "environment": "development",
        "strategy": "sync-dict",
        "shards": "4",
        "shard_key": "channel",
    }
    assert samples[key("ws_build_info", **labels)] == 1


def test_an_empty_board_has_all_counters_at_zero() -> None:
    """Counters exist from the start, so that their first rise is seen."""
    samples = scrape(Board(4096))
    assert {samples[key(name)] for name in COUNTERS.values()} == {0}
    for _, name in HISTOGRAMS.values():
        assert samples[key(name + "_count")] == samples[key(name + "_bucket", le="+Inf")] == 0
    assert sum(name == "ws_connections_closed_total" for name, _ in samples) == len(CLOSES)


def test_names() -> None:
    """Every name begins with `ws_`, is one that Prometheus takes, and has its unit spelled out."""
    for name, _ in scrape(board_with_workers()):
        assert re.fullmatch(r"ws_[a-z]+(_[a-z]+)*", name)


@pytest.mark.parametrize("environment", ['quo"te', "back\\slash", "new\nline", "ünï", "{}"])
def test_labels_are_escaped(environment: str) -> None:
    """Whatever the deployment is called, the exposition stays readable."""
    samples = scrape(Board(4096), Settings.from_environ({"ENVIRONMENT": environment}))
    assert [dict(labels)["environment"] for name, labels in samples if name == "ws_build_info"] == [
        environment
    ]


def test_what_admission_goes_by() -> None:
    """Each resource with its value, its threshold, its pressure and its health; and the rate."""
    board = board_with_workers()
    for row in board.rows[:2]:
        row.cpu_cores, row.hub_lag_seconds, row.greenlets, row.rss_bytes = 0.6, 0.0, 0, 0
    samples = scrape(board)
    assert samples[key("ws_admission_value", resource="cpu")] == pytest.approx(80.0)
    assert samples[key("ws_admission_threshold", resource="cpu")] == 75.0
    assert samples[key("ws_admission_healthy", resource="cpu")] == 0
    assert 0 < samples[key("ws_admission_pressure", resource="cpu")] < 1
    assert 10 < samples[key("ws_admission_rate")] < 200
    for reason in REASONS:
        assert key("ws_admission_pressure", resource=reason) in samples
