"""`python -m tests.attack.worst`, at a small size."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.attack import worst
from tests.attack.judging import Trial
from tests.attack.test_judging import RIGHT, found
from tests.programs import miss

LIMIT_BYTES = 256 << 20


def test_some_that_hold_all_they_may(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They would take a gigabyte; the server stays below a quarter of it, and serves."""
    arguments = ["--connections", "400", "--memory", str(LIMIT_BYTES), "--workers", "1", "--seconds", "6"]
    status = worst.main([*arguments, "--out", str(tmp_path)])
    said = capsys.readouterr().out
    if status == 2:
        miss(said)
    assert status == 0, said
    trial = msgspec.json.decode((tmp_path / "worst.json").read_bytes(), type=Trial)
    assert trial.most < LIMIT_BYTES


def test_what_does_not_hold() -> None:
    """Each in a line of its own."""
    assert worst.faults(RIGHT, worst.HONEST + 10, LIMIT_BYTES) == []
    bad = msgspec.structs.replace(
        RIGHT,
        most=LIMIT_BYTES,
        restarted=True,
        under=found(entries=[0.1], refused=["503 memory"], heartbeats=[]),
    )
    assert worst.faults(bad, worst.HONEST + 100, LIMIT_BYTES) == [
        "nothing is proven: only 9 attackers were in",
        "256 MiB are not below the limit",
        "a worker ended",
        "it served nobody",
        "1 of 1 honest clients were refused",
    ]
