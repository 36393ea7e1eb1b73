"""A soak of seconds: everything exact holds. What needs time is judged by `python -m tests.soak`."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from tests.soak import report
from tests.soak.judging import Trend
from tests.soak.run import Plan, run
from tests.soak.samples import Sample

SECONDS = 15.0
CLIENTS = 60


def test_a_short_soak(tmp_path: Path) -> None:
    """All counts agree at each pause, nothing is lost, nothing is left, and a picture is drawn."""
    told: list[Sample] = []
    result = run(Plan(SECONDS, CLIENTS, seed=1, rate=100.0), tmp_path, told.append)
    assert result.faults == []
    assert told == result.samples
    assert len(told) >= 2
    assert told[-1].joined > CLIENTS, "the churn has really happened"
    assert {worker.slot for worker in told[-1].workers} == {0, 1}
    assert result.published > 500
    assert result.got > 10 * CLIENTS
    path = tmp_path / "pictures/soak.png"
    report.picture(path, "a short soak", told)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """What leaks is called so, with its figures."""
    leaks = Trend("memory", 0, 60 << 20, 4 << 20, 1 << 18, 1 << 20, 1 << 19, 1 << 18)
    steady = Trend("threads", 1, 3.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    Console(width=130).print(report.table([leaks, steady]))
    lines = capsys.readouterr().out.splitlines()
    [first] = [line for line in lines if "leaks" in line]
    [second] = [line for line in lines if "steady" in line]
    assert "60.00 MiB" in first
    assert "+4.00 MiB" in first
    assert "threads" in second
