"""What is judged: each fault is found, and only where it is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from rich.console import Console

from tests.attack import report
from tests.attack.attackers import Outcome
from tests.attack.honest import Found
from tests.attack.judging import Trial, faults, has_controls, p99

MIB = 1 << 20
QUIET = Found(heartbeats=[0.001] * 99 + [0.004], deliveries=[0.002] * 100, entries=[0.01])
RIGHT = Trial(
    vector="pings",
    outcome=Outcome(sent=1_000_000, connected=9, upgraded=9, turned_away=3, held=6, breaches=[]),
    before=60 * MIB,
    most=65 * MIB,
    after=61 * MIB,
    recovered_seconds=0.3,
    quiet=QUIET,
    under=QUIET,
    ends={"policy": 3},
    busy=0.4,
    logged=2000,
    has_controls=False,
    restarted=False,
    memory=[(0.0, 60.0), (1.0, 65.0)],
)


def found(**changed: Any) -> Found:
    """What honest clients find who are served well, but for this."""
    return msgspec.structs.replace(QUIET, **changed)


def test_a_right_trial_has_no_faults() -> None:
    """Some memory more and some milliseconds are allowed."""
    assert faults(RIGHT) == []
    assert faults(msgspec.structs.replace(RIGHT, most=79 * MIB, under=found(heartbeats=[0.05] * 100))) == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"most": 81 * MIB}, "memory rose by 21 MiB"),
        ({"under": found(heartbeats=[0.001] * 90 + [0.06] * 10)}, "p99 rose by 59 ms"),
        ({"under": found(deliveries=[0.3] * 100)}, "p99 rose by 298 ms"),
        ({"under": found(heartbeats=[])}, "honest clients heard nothing"),
        ({"under": found(refused=["503 memory"] * 3)}, "3 honest clients were refused: 503 memory"),
        ({"under": found(missing=2)}, "2 messages did not reach honest clients"),
        ({"recovered_seconds": None, "after": 90 * MIB}, "not as before after 10 s: memory +50 %"),
        ({"logged": 200 << 10}, "200 KiB of log"),
        ({"has_controls": True}, "control characters in the log"),
        ({"restarted": True}, "a worker ended"),
        ({"least": 10}, "nothing is proven: only 9 were in"),
        ({"expected": "memory"}, "nothing is proven: nobody was ended for memory"),
        ({"outcome": Outcome(0, 0, 0, 0, 0, [])}, "nobody attacked"),
        ({"outcome": Outcome(1, 1, 0, 0, 0, ["GET /stats"])}, "1 looks inside: GET /stats"),
    ],
)
def test_one_wrong_thing_is_a_fault(changed: dict[str, Any], words: str) -> None:
    """And it is said with its figure."""
    assert faults(msgspec.structs.replace(RIGHT, **changed)) == [words]


def test_p99() -> None:
    """Of a hundred values one may be anything."""
    assert p99([]) == 0.0
    assert p99([3.0]) == 3.0
    assert p99([1.0] * 99 + [9.0]) == 1.0
    assert p99([1.0] * 98 + [5.0, 9.0]) == 5.0


def test_controls() -> None:
    """What a terminal obeys; lines and tabs are of the log itself."""
    assert not has_controls("a line\n\tof a traceback, é\n")
    for character in "\x1b\x00\x07\r\x7f":
        assert has_controls(f"a {character} b")


def test_the_report(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A table with the faults, a picture, and the same beside an earlier run."""
    bad = msgspec.structs.replace(RIGHT, vector="since", most=99 * MIB)
    Console(width=200).print(report.table([RIGHT, bad], [bad]))
    said = capsys.readouterr().out
    for word in ("pings", "holds", "memory rose by 39 MiB", "policy 3"):
        assert word in said
    row = "| +39 MiB, +0 ms, 0.4 cores | +5 MiB, +0 ms, 0.4 cores |"
    assert row in report.markdown([msgspec.structs.replace(RIGHT, vector="since")], [bad])
    report.picture(tmp_path / "attack.png", [RIGHT, bad], [bad])
    assert (tmp_path / "attack.png").read_bytes().startswith(b"\x89PNG")
