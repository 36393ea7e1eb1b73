"""Whether servers take the ramp of a plan."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

import msgspec
import pytest

from odinws.experiment.calibration import calibrate, check, pace
from odinws.experiment.load import NOTHING, Line
from odinws.experiment.plan import Plan, parse

_PLAN = """
name = "fast"
question = "Too fast?"
[load]
connections = 2000
ramp = 500.0
[[arm]]
name = "a"
baseline = true
settings = { WS_WORKERS = "1" }
[[arm]]
name = "b"
"""


def _plan(change: Callable[[str], str] = lambda text: text) -> Plan:
    return parse(change(_PLAN), "plan.toml")


def _lines(*connected: int) -> list[Line]:
    """One each second."""
    return [
        msgspec.structs.replace(NOTHING, t=1000.0 + second, connected=count)
        for second, count in enumerate(connected)
    ]


@pytest.mark.parametrize(
    ("connected", "taken"),
    [
        ((0, 0, 400, 900, 1400, 2000), 500.0),
        ((0, 100, 250, 400), 150.0),
        ((0, 100), 0.0),
        ((), 0.0),
        ((0, 1500, 2000), math.inf),
    ],
)
def test_pace(connected: tuple[int, ...], taken: float) -> None:
    """Between the first line with anybody and the last before all: before and after nobody could come."""
    assert pace(_lines(*connected), 2000) == taken


def test_fast_enough() -> None:
    """A fifth less is a machine that does something else too."""
    plan = _plan()
    assert check(plan, plan.arms[0], math.inf) is None
    assert check(plan, plan.arms[0], 400.0) is None


def test_slow() -> None:
    """A warning, with the field, its value, what was taken, and what to write."""
    plan = _plan()
    found = check(plan, plan.arms[0], 123.4)
    assert found is not None
    assert found.severity == "warning"
    assert found.text == "load.ramp = 500: a server as a took 123 connections/s on this machine just now"
    assert found.what_to_do == "set load.ramp to 98 or less, or stop what else runs here"


def test_hopeless() -> None:
    """An error: a trial would end before its clients are there. The field is that of the arm."""
    plan = _plan(lambda text: f"{text}load = {{ ramp = 1000.0, connections = 10000 }}\n")
    found = check(plan, plan.arms[1], 123.4)
    assert found is not None
    assert found.severity == "error"
    assert found.text.startswith("arm[1].load.ramp = 1000: a server as b took 123 connections/s")
    assert found.text.endswith(", and a trial waits 70 s for its 10,000")
    nobody = check(plan, plan.arms[1], 0.0)
    assert nobody is not None
    assert nobody.what_to_do.startswith("set arm[1].load.ramp to 1 or less")


def test_slow_ramps_are_not_tried() -> None:
    """Nothing is started for them."""
    told: list[str] = []
    assert asyncio.run(calibrate(_plan(lambda text: text.replace("500.0", "100.0")), told.append)) == []
    assert told == []


def test_a_real_server() -> None:
    """No server of Python takes 10,000 connections/s; the arm with the same load is not tried again."""
    told: list[str] = []
    fast = _plan(lambda text: text.replace("500.0", "10000.0").replace("2000", "6000"))
    found = asyncio.run(calibrate(fast, told.append))
    assert told == ["trying the ramp of a"]
    assert [one.text.partition(":")[0] for one in found] == ["load.ramp = 10000"]
