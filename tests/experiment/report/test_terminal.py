"""The answer as text."""

from __future__ import annotations

import io

import msgspec
from rich.console import Console

from odinws.experiment.kinds import Trial
from odinws.experiment.report.terminal import print_records, print_result
from odinws.experiment.verdict import judge
from tests.experiment.synthetic import as_read, plan, run


def _console() -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, width=160), text


def test_result() -> None:
    """The answer stands first, then a table for each arm, then what speaks against it."""
    result = judge(as_read(run(plan(3, rounds=5), 1, {"b": {"lost": 1.0}})))
    console, text = _console()
    print_result(result, console)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    assert lines[0] == result.answer
    assert "b against a" in lines
    assert "c against a" in lines
    assert any(
        line.startswith("messages lost ") and line.endswith("failed: the baseline has none") for line in lines
    )
    assert any(line.startswith("error: 5 rounds can't show a difference") for line in lines)


def test_why_connections_failed() -> None:
    """By trial, the most frequent cause first."""
    records = run(plan(), 1)
    errors = {"reset while upgrading": 1, "refused with 503 (overload)": 1895}
    found = [
        msgspec.structs.replace(record, errors=errors)
        if isinstance(record, Trial) and (record.arm, record.round) == ("b", 3)
        else record
        for record in records
    ]
    console, text = _console()
    print_result(judge(as_read(found)), console)
    lines = [line.split() for line in text.getvalue().splitlines()]
    assert "why connections failed or ended" in text.getvalue()
    assert ["3", "b", "1,895", "refused", "with", "503", "(overload)"] in lines
    assert ["3", "b", "1", "reset", "while", "upgrading"] in lines


def test_records() -> None:
    """Machine, versions, arms, all trials, and how far they lie apart."""
    console, text = _console()
    print_records(as_read(run(plan(), 1)), console)
    lines = text.getvalue().splitlines()
    assert lines[0] == "made-up: Which is it?"
    assert "made up, 8 cores, 16.0 GiB, kernel 6.1" in lines
    assert "a (baseline): WS_WORKERS=1" in lines
    assert sum(" ok " in line for line in lines) == 12
    assert any(line.startswith("memory per connection") for line in lines)
