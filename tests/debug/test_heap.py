"""`odinws.debug.heap`: what stays, where it was made, and what it cost."""

from __future__ import annotations

import tracemalloc

import gevent
import pytest

from odinws.debug import heap

_kept: list[bytes] = []


def leak() -> None:
    """Keep 10 kB every 10 ms."""
    while True:
        _kept.append(b"\1" * 10_000)
        gevent.sleep(0.01)


def warm_up() -> None:
    """Keep 300 kB once."""
    _kept.append(b"\2" * 300_000)


def test_a_leak_is_told_from_a_cache() -> None:
    """Both stay; only the leak grew in the second half. Each by function and line."""
    leaking = gevent.spawn(leak)
    gevent.spawn(warm_up)
    try:
        seen = heap.trace(1.0, 3, 20)
    finally:
        leaking.kill()
        _kept.clear()
    assert not tracemalloc.is_tracing()
    assert {place["place"].split()[-1] for place in seen["top"]} >= {"leak", "warm_up"}
    grown = seen["grown"][0]
    assert grown["place"].startswith("tests/debug/test_heap.py:")
    assert grown["place"].endswith(" leak")
    assert grown["stack"][-1] == grown["place"]
    assert "warm_up" not in {place["place"].split()[-1] for place in seen["grown"]}
    assert seen["traced_bytes"] >= 300_000
    assert seen["cost"]["tracer_bytes"] > 0
    assert not seen["ended_early"]


def test_it_ends_when_it_grows_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long before its time, and says so."""
    monkeypatch.setattr(heap, "_TRACER_BYTES", 1)
    seen = heap.trace(60.0, 1, 1)
    assert seen["ended_early"]
    assert seen["seconds"] < 10
    assert not tracemalloc.is_tracing()
