"""Real runs: small, with figures that agree; and runs that go wrong, after which nothing is left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from odinws.cli import main
from odinws.experiment.kinds import End, Records
from odinws.experiment.plan import parse
from odinws.experiment.record import read
from odinws.experiment.run import changed
from tests.server import PATIENCE_SECONDS, ROOT, wait_for

_TOGETHER = """
name = "small"
question = "Do figures agree?"
mode = "together"
rounds = 1
warmup_seconds = 1.0
measure_seconds = 3.0
[load]
connections = 60
ramp = 100.0
[[arm]]
name = "single-lock"
baseline = true
settings = { WS_SHARD_STRATEGY = "single-lock", WS_WORKERS = "1" }
[[arm]]
name = "sync-dict"
settings = { WS_SHARD_STRATEGY = "sync-dict", WS_WORKERS = "1" }
"""
_IN_TURN = """
name = "wrong"
question = "What is left?"
rounds = 3
warmup_seconds = 0.0
measure_seconds = 60.0
[load]
connections = 20
ramp = 100.0
[[arm]]
name = "broken"
baseline = true
config = "tests/experiment/broken_conf.py"
[[arm]]
name = "sound"
settings = { WS_WORKERS = "1" }
"""


def _start(text: str, directory: Path) -> subprocess.Popen[bytes]:
    plan = directory / "plan.toml"
    plan.write_text(text)
    command = (
        sys.executable,
        "-m",
        "odinws",
        "experiment",
        "run",
        str(plan),
        "--out",
        str(directory / "out"),
    )
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background ignores it for all
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _records(directory: Path) -> Records | None:
    path = directory / "out" / "records.jsonl"
    return read(path.parent) if path.exists() and path.stat().st_size else None


def test_a_small_run(tmp_path: Path) -> None:
    """Two arms hear the same messages, and what servers say they sent is what the swarm counted."""
    process = _start(_TOGETHER, tmp_path)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err.decode()
    records = _records(tmp_path)
    assert records is not None
    assert records.end == End(status="complete")
    assert [trial.status for trial in records.trials] == ["ok", "ok"]
    for trial in records.trials:
        counts = trial.counts
        assert counts["server_delivered"] == counts["swarm_delivered"]
        assert counts["swarm_lost"] == counts["swarm_duplicated"] == counts["swarm_disordered"] == 0
        # Each channel has a message in each burst, at 0, 0.52, … s; those after 1 s are measured.
        assert trial.assigned.connections == 60
        assert trial.assigned.messages_published == 60
        assert trial.values["cpu_us_per_message"] > 0
        assert trial.values["delivery_p50_ms"] <= trial.values["delivery_longest_ms"]
        assert trial.values["used_shards"] == 1
    first, second = records.trials
    assert first.assigned == second.assigned
    assert {record.second for record in records.seconds} == {-1, 0, 1, 2}
    for record in records.seconds:
        assert record.values["connections"] >= 60
        assert record.values["delivered_per_s"] > 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["status"] == "complete"
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000
    assert b"rounds can't show a difference" in out.replace(b"\n", b" ")


def test_an_arm_that_crashes_and_a_run_that_is_stopped(tmp_path: Path) -> None:
    """The one fails its trial and no other; the other is marked; and no process is left."""
    process = _start(_IN_TURN, tmp_path)
    wait_for(lambda: (records := _records(tmp_path)) and records.seconds, 60, "a second of the sound arm")
    below = psutil.Process(process.pid).children(recursive=True)
    assert len(below) >= 4  # nats-server, arbiter, worker, swarm
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 3
    assert b"the run is partial: stopped by SIGINT" in err
    records = _records(tmp_path)
    assert records is not None
    broken, sound = records.trials
    assert (broken.arm, broken.status) == ("broken", "failed")
    assert "this configuration is broken on purpose" in broken.problem
    assert (sound.arm, sound.status) == ("sound", "interrupted")
    assert sound.values["lost"] == 0
    assert records.end == End(status="partial", why="stopped by SIGINT")
    assert not any(each.is_running() for each in below)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "logs",
        "records.jsonl",
        "report.html",
        "result.json",
    ]


def test_a_run_that_is_killed(tmp_path: Path) -> None:
    """Its children end by themselves, and what was measured can be read."""
    process = _start(
        _IN_TURN.replace("tests/experiment/broken_conf.py", "python:odinws.gunicorn_conf"), tmp_path
    )
    wait_for(lambda: (records := _records(tmp_path)) and records.seconds, 60, "a second of an arm")
    below = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate(timeout=PATIENCE_SECONDS)
    wait_for(lambda: not any(each.is_running() for each in below), 15, "the end of all children")
    records = _records(tmp_path)
    assert records is not None
    assert records.end == End(status="partial", why="the run was cut off")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("rounds = 1", "rounds = 0"), "rounds = 0"),
        (("WS_WORKERS", "WS_WORKER"), "did you mean WS_WORKERS"),
        (('mode = "together"', "mode = "), "this is no TOML"),
        (("[[arm]]", "[arm]"), "arm"),
    ],
)
def test_a_bad_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], text: str
) -> None:
    """One line says what is wrong, and nothing is made."""
    plan = tmp_path / "plan.toml"
    plan.write_text(_TOGETHER.replace(*change))
    assert main(["experiment", "run", str(plan), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert text in said
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [plan]


def test_records_are_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory that has a run is refused before anything starts."""
    plan, out = tmp_path / "plan.toml", tmp_path / "out"
    plan.write_text(_TOGETHER)
    out.mkdir()
    (out / "records.jsonl").write_text("")
    assert main(["experiment", "run", str(plan), "--out", str(out)]) == 3
    assert "a run is here already" in capsys.readouterr().err


def test_what_the_command_line_changes() -> None:
    """Rounds, seconds and connections, of the plan and of each arm."""
    plan = changed(parse(_TOGETHER, "plan.toml"), rounds=7, seconds=2.5, connections=9)
    assert (plan.rounds, plan.measure_seconds, plan.load.connections) == (7, 2.5, 9)
    assert [arm.load.connections for arm in plan.arms] == [9, 9]
    assert plan.arms[0].load.ramp == 100.0
    assert changed(plan) == plan
