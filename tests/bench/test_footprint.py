"""What a connection at rest holds, counted and measured."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from bench.footprint import footprint, measured
from bench.resting import ALL_SLAB, BUSY, own, reach


class Thing:
    """Something with slots, as a connection is."""

    __slots__ = ("all", "mine")

    def __init__(self, mine: object, everybodys: object) -> None:
        self.mine = mine
        self.all = everybodys


def test_own_leaves_out_what_another_has() -> None:
    """What two objects lead to counts for neither, what one leads to counts once, in steps of 16 bytes."""
    name = "name of a channel"
    shared = [name]
    value = [1 << 40, bytes(range(20))]
    one, other = Thing([value, value], shared), Thing([], shared)
    found = own(one, reach(other))
    assert set(found) == {
        "itself (Thing)",
        "mine (list)",
        "mine > list (list)",
        "mine > list > int (int)",
        "mine > list > bytes (bytes)",
    }
    assert found["mine > list > bytes (bytes)"] == -(-sys.getsizeof(bytes(20)) // 16) * 16
    assert all(size % 16 == 0 for size in found.values())


def test_the_sum_is_what_is_measured() -> None:
    """What is counted object by object is nearly all that memory grows by."""
    found = measured(1000)
    objects, containers = found["objects"], found["containers"]
    assert {
        "itself (Connection)",
        "_sock (socket)",
        "_read (io)",
        "channels (dict)",
        "id (str)",
        "peer (str)",
    } <= set(objects)
    assert 600 < sum(objects.values()) < 1000
    assert containers["strategy: 5 snapshots"] == pytest.approx(40, abs=1)
    assert all(0 < size < 400 for size in containers.values())
    counted = sum(objects.values()) + sum(containers.values())
    assert 0.9 * counted < found["resident"] < 1.5 * counted
    assert 32 <= found["watcher_struct"] <= 64
    assert ALL_SLAB in found["kernel"]


def test_what_is_not_at_rest_holds_more() -> None:
    """An outbox, a reader and a greenlet are there only when needed; shared frames count for nobody."""
    partial, command, full = measured(BUSY)["states"].values()
    assert {"_reader (FrameReader)"} < set(partial)
    assert 100 < sum(partial.values()) < 800
    assert "commands (deque)" in command
    assert 2000 < command["all, with its greenlet (resident)"] < 40_000
    assert {"_outbox (Outbox)", "_write (io)"} < set(full)
    assert 1000 < sum(full.values()) < 4000


def test_the_command_prints_tables() -> None:
    """The sum stands beside the measured growth."""
    done = CliRunner().invoke(footprint, ["--connections", str(BUSY)])
    assert done.exit_code == 0, done.output
    for words in ("itself (Connection)", "measured: growth of RSS", ALL_SLAB, "More while a command waits"):
        assert words in done.output


def test_a_failure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line of what the process said that speaks of an error."""
    ended = SimpleNamespace(returncode=1, stderr="Traceback\nOSError: Too many open files\n")
    monkeypatch.setattr("bench.build.subprocess.run", lambda *_, **__: ended)
    with pytest.raises(click.ClickException, match=r": OSError: Too many open files$"):
        measured(BUSY)
