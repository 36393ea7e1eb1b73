"""`odinws.debug.tables`: the line that answers the question stands first."""

from __future__ import annotations

from typing import Any

import pytest

from odinws.debug.tables import show


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal on which no line breaks."""
    monkeypatch.setenv("COLUMNS", "400")


def lock(shard: int, wait_seconds: float, hold_seconds: float) -> dict[str, Any]:
    """A lock of a shard."""
    times = {"wait_seconds": wait_seconds, "hold_seconds": hold_seconds}
    longest = {f"longest_{name}": seconds for name, seconds in times.items()}
    counts = {"acquisitions": 1, "contended": 1, "holds": [1, 0], "waits": [0, 1]}
    return {"shard": shard, "longest_holder": f"holder{shard}", **times, **longest, **counts}


def test_locks_are_sorted_by_waits_and_holds(capsys: pytest.CaptureFixture[str]) -> None:
    """Of all workers, by the figures and not by how they are written; then by how long they are held."""
    shards = [
        [lock(0, 0.9, 3.0), lock(1, 12.5, 0.1)],
        [lock(2, 0.9, 4.0), lock(3, 2.0, 0.0)],
    ]
    show(
        "locks",
        [
            {"pid": pid, "result": {"bounds_seconds": [0.001], "shards": found}}
            for pid, found in enumerate(shards, 7)
        ],
    )
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[-1] for line in lines] == ["holder1", "holder3", "holder2", "holder0"]
    assert "12,500.000" in lines[0]
    assert lines[0].split()[:2] == ["7", "1"]


def test_the_slowest_pass_is_first(capsys: pytest.CaptureFixture[str]) -> None:
    """Also where a shorter one begins with a greater digit; who gave no answer is named at the end."""
    counts = {"slices": 1, "messages": 1, "sends": 1, "delivered": 1, "size_bytes": 1, "backlog": 0}
    found = [
        {
            "at": 0.0,
            "seconds": seconds,
            "away_seconds": 0.0,
            "gc_seconds": 0.0,
            **counts,
            "channel_count": 1,
            "channels": [f"token.{name}"],
        }
        for name, seconds in (("A", 0.9), ("B", 1.25), ("C", 0.95))
    ]
    show("slow", [{"pid": 8, "error": "no answer"}, {"pid": 7, "result": found}])
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[-1] for line in lines] == ["token.B", "token.C", "token.A", "answer"]
