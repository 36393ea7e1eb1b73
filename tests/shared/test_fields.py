"""`odinws.shared.fields`: a declaration is the layout, the metric and the place in `/stats`."""

from __future__ import annotations

import ctypes
from dataclasses import fields
from typing import Annotated, Any

import pytest

from odinws.monitoring.report import words
from odinws.shared.counters import Counters
from odinws.shared.fields import (
    Counter,
    Counts,
    Histogram,
    Metric,
    Shown,
    Times,
    counter,
    gauge,
    histogram,
    metrics,
    shared_struct,
    shown,
)
from odinws.shared.shards import LockCounters, LockGauges, ShardGauges
from odinws.shared.worker_stats import WorkerStats
from strategies.base import ShardStats
from strategies.locks import LockStats


class Cakes:
    """A part of a structure."""

    baked: int = counter("ws_baked", "Cakes baked.", stats="baked")
    tasted: Counts = counter(
        "ws_tasted", "Cakes tasted.", ("kind",), values=("plum", "pear"), stats="cakes.tasted"
    )


class Waits:
    """Another one."""

    lasting: Counts = histogram(
        "ws_cake_seconds",
        "How long they last.",
        bounds=(1.0, 5.0),
        sum_field="lasting_seconds",
        stats="cakes.lasting",
        quantiles=(0.5, 0.999),
    )
    lasting_seconds: Times = counter("ws_wait_seconds", "Waits.", ("n",), values=("0", "1"))


@shared_struct
class Kitchen(Cakes, Waits, ctypes.Structure):
    """Both, and what is its own."""

    pid: int
    name: Annotated[bytes, ctypes.c_char * 8]
    heat: float = gauge("ws_heat_ratio", "Heat.", stats="heat", digits=2)


def test_the_layout_is_as_declared() -> None:
    """What is inherited included, each with as many elements as it has values or buckets."""
    layout = {name: kind for name, kind, *_ in Kitchen._fields_}
    assert list(layout) == ["pid", "name", "heat", "baked", "tasted", "lasting", "lasting_seconds"]
    assert layout == {
        "pid": ctypes.c_uint64,
        "name": ctypes.c_char * 8,
        "heat": ctypes.c_double,
        "baked": ctypes.c_uint64,
        "tasted": ctypes.c_uint64 * 2,
        "lasting": ctypes.c_uint64 * 3,
        "lasting_seconds": ctypes.c_double * 2,
    }


def test_a_metric_knows_its_field() -> None:
    """And what is inherited is among them."""
    assert [(metric.name, metric.field) for metric in metrics(Kitchen)] == [
        ("ws_heat_ratio", "heat"),
        ("ws_baked", "baked"),
        ("ws_tasted", "tasted"),
        ("ws_cake_seconds", "lasting"),
        ("ws_wait_seconds", "lasting_seconds"),
    ]
    assert shown(Cakes).keys() == {"baked", "tasted"}


def test_the_name_in_a_query() -> None:
    """With the end that its kind has."""
    assert [metric.shown_name for metric in metrics(Kitchen)[:2]] == ["ws_heat_ratio", "ws_baked_total"]


def test_the_labels_of_each_element() -> None:
    """A value of one label stands for itself."""
    tasted, closed = shown(Cakes)["tasted"], shown(Counters)["closed"]
    assert isinstance(tasted, Counter)
    assert isinstance(closed, Counter)
    assert tasted.elements == (("plum",), ("pear",))
    assert closed.elements[0] == ("client", "1000")


def test_words_are_at_their_places() -> None:
    """As `/stats` has them: counts by their label, histograms with their estimates, rounded as declared."""
    kitchen = Kitchen(pid=7, heat=0.666, baked=3)
    kitchen.tasted[1] = 4
    kitchen.lasting[0], kitchen.lasting_seconds[1] = 2, 1.25
    assert words(kitchen) == {
        "heat": 0.67,
        "baked": 3,
        "cakes": {
            "tasted": {"plum": 0, "pear": 4},
            "lasting": {
                "bounds_seconds": [1.0, 5.0],
                "counts": [2, 0, 0],
                "sum_seconds": 1.25,
                "p50_seconds": 0.5,
                "p99_9_seconds": 0.999,
            },
        },
    }


@pytest.mark.parametrize("cls", [WorkerStats, Counters])
def test_no_two_fields_are_at_one_place(cls: type) -> None:
    """Each path in `/stats` and each name is one field's alone, and none lies within another."""
    paths = [field.stats for field in shown(cls).values() if field.stats]
    assert len(set(paths)) == len(paths)
    assert not [path for path in paths for other in paths if other.startswith(f"{path}.")]
    names = [metric.name for metric in metrics(cls)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("cls", [WorkerStats, Counters])
def test_a_unit_of_its_field(cls: type) -> None:
    """What is measured in seconds or cores is no whole number, and what is counted in bytes is one."""
    kinds: dict[str, Any] = {name: kind for name, kind, *_ in cls._fields_}  # type: ignore[attr-defined]
    for metric in metrics(cls):
        field = metric.sum_field if isinstance(metric, Histogram) else metric.field
        kind = getattr(kinds[field], "_type_", None)
        element = kinds[field] if isinstance(kind, str) else kind
        assert (element is ctypes.c_double) is (metric.unit in ("seconds", "cores", "ratio")), metric.name


def test_what_a_strategy_tells_of_a_shard() -> None:
    """Is what is declared of it, and no less."""
    assert {"index", "lock", *shown(ShardGauges)} == {field.name for field in fields(ShardStats)}
    assert {*shown(LockGauges), *shown(LockCounters)} == {field.name for field in fields(LockStats)}


def test_what_is_in_stats_alone_is_no_metric() -> None:
    """As a pid, which changes."""
    field = shown(WorkerStats)["pid"]
    assert field == Shown(stats="pid")
    assert not isinstance(field, Metric)
