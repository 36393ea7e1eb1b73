"""From what was seen of an arm to the record of its trial."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from odinws.experiment.arms import Arm
from odinws.experiment.feed import Replay
from odinws.experiment.kinds import Assigned
from odinws.experiment.load import Swarm
from odinws.experiment.outcome import Part, trial
from odinws.experiment.plan import Plan, parse

_PLAN = """
name = "p"
question = "q"
warmup_seconds = 1.0
measure_seconds = 2.0
[[arm]]
name = "a"
baseline = true
[[arm]]
name = "b"
"""
_REPLAY = Replay(first_seq=501, last_seq=560, longest_late_seconds=0.0124)
_WARM_MESSAGES = 20
_COUNTS = ("attempts", "failed", "refused", "lost", "duplicated", "disordered", "gaps", "reconnects")


def _plan() -> Plan:
    return parse(_PLAN, "plan.toml")


def _part(directory: Path, *, final: bool) -> Part:
    """An arm whose swarm has written five lines: of 10 deliveries each, all within 2 to 4 ms."""
    plan = _plan().arms[0]
    swarm = Swarm(plan.load, 1, 1.0, 1, directory / "record", directory / "log")
    (directory / "log").write_text("")
    lines: list[dict[str, object]] = [{"bounds_ms": [1.0, 2.0, 4.0, 8.0]}]
    for number in range(5):
        line: dict[str, object] = dict.fromkeys(_COUNTS, 0)
        line |= {"t": float(number), "connected": 10 + number, "delivered": 10 * number}
        line |= {"swarm_cpu_percent": 3.0 * number, "swarm_stall_ms": 0.0}
        line["histograms"] = {"delivery": [0, 0, 10 * number, 0], "connect": [5, 0, 0, 0]}
        lines.append(line)
    if final:
        lines.append({**lines[-1], "final": True, "limited": True, "why": "full"})
    (directory / "record").write_text("".join(json.dumps(line) + "\n" for line in lines))
    part = Part(plan, 0, Arm(plan, "nats://127.0.0.1:1", directory / "server"), swarm)
    swarm.poll()
    part.lines = list(swarm.lines[:4])  # from the start of the warm-up to the end of the measuring
    part.metrics = {"ws_messages_delivered_total": 40.0}
    return part


def test_a_good_trial(tmp_path: Path) -> None:
    """Deliveries from the end of the warm-up on, connects of the whole trial, and what it was given."""
    found = trial(_part(tmp_path, final=True), 2, _plan(), _REPLAY, _WARM_MESSAGES, "")
    assert (found.status, found.problem, found.round) == ("ok", "", 2)
    assert found.histograms["delivery"].counts == [0, 0, 30, 0]
    assert found.histograms["connect"].counts == [5, 0, 0, 0]
    assert found.values["delivery_p50_ms"] == pytest.approx(8**0.5)
    assert found.values["delivery_longest_ms"] == 4.0
    assert found.counts["server_delivered"] == found.counts["swarm_delivered"] == 40
    assert found.counts["feed_longest_late_ms"] == 12
    assert found.assigned == Assigned(connections=10, messages_published=40, first_seq=521, last_seq=560)
    assert found.swarm.limited
    assert found.swarm.cpu_percent == 9.0


def test_a_swarm_without_a_last_line(tmp_path: Path) -> None:
    """Its trial has failed, and says why."""
    found = trial(_part(tmp_path, final=False), 0, _plan(), _REPLAY, _WARM_MESSAGES, "")
    assert found.status == "failed"
    assert "the swarm left no last line" in found.problem


def test_an_interruption(tmp_path: Path) -> None:
    """What was measured is kept; the interruption goes before what it has caused."""
    found = trial(_part(tmp_path, final=True), 0, _plan(), None, _WARM_MESSAGES, "the run was stopped")
    assert (found.status, found.problem) == ("interrupted", "the run was stopped")
    assert found.values["lost"] == 0.0
    assert found.assigned == Assigned(connections=10)
    late = trial(_part(tmp_path, final=False), 0, _plan(), None, 0, "the run was stopped")
    assert late.problem == "the run was stopped"


def test_an_arm_that_failed_early(tmp_path: Path) -> None:
    """There is nothing to keep, and no mention of what came of it."""
    part = _part(tmp_path, final=False)
    part.lines, part.problem = [], "the server ended with status 1: no"
    found = trial(part, 0, _plan(), None, 0, "")
    assert (found.status, found.problem) == ("failed", "the server ended with status 1: no")
    assert found.values == {}
