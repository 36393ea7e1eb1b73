"""What a plan can't know by itself is found before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from odinws.experiment import arms
from odinws.experiment.commands import read_plan
from odinws.experiment.plan import PlanError, parse

PLANS = Path(__file__).parents[2] / "conf/experiments"

_PLAN = """
name = "p"
question = "q"
mode = "{mode}"
[[arm]]
name = "a"
baseline = true
[[arm]]
name = "b"
{more}
"""


@pytest.mark.parametrize("path", sorted(PLANS.glob("*.toml")), ids=lambda path: path.stem)
def test_shipped_plans(path: Path) -> None:
    """Each can be carried out, has the name of its file, and enough rounds to show a difference."""
    plan = read_plan(path)
    assert plan.name == path.stem
    assert plan.rounds >= 6


@pytest.mark.parametrize(
    ("mode", "more", "text"),
    [
        (
            "in-turn",
            'settings = { WS_WORKERS = "no" }',
            r"arm\[1\].settings.WS_WORKERS = 'no': expected",
        ),
        ("in-turn", 'settings = { WS_NUM_SHARD = "8" }', "did you mean WS_NUM_SHARDS"),
        ("in-turn", 'settings = { WS_SUBJECT_PREFIX = "x." }', "the experiment sets this one itself"),
        (
            "in-turn",
            'config = "python:no.where"',
            r"arm\[1\].config = 'python:no.where': there is no such file",
        ),
        ("in-turn", 'config = "nowhere.py"', r"arm\[1\].config = 'nowhere.py': there is no such file"),
        ("together", "feed = { rate = 1.0 }", r"arm\[1\].feed: arms that run together hear one feed"),
    ],
)
def test_what_would_not_start(mode: str, more: str, text: str) -> None:
    """One line names the field, the value, what is allowed and the arm."""
    with pytest.raises(PlanError, match=text) as caught:
        arms.check(parse(_PLAN.format(mode=mode, more=more), "plan.toml"), "plan.toml")
    assert "\n" not in str(caught.value)


def test_an_arm_gets_its_settings() -> None:
    """And a guard that refuses nobody, unless it asks for one."""
    plan = parse(_PLAN.format(mode="in-turn", more="settings = { WS_ADMISSION_DRY_RUN = false }"), "p")
    first, second = (arms.settings_of(arm, "nats://n:1", 7) for arm in plan.arms)
    assert first["WS_ADDR"] == "127.0.0.1:7"
    assert first["WS_ADMISSION_DRY_RUN"] == "true"
    assert second["WS_ADMISSION_DRY_RUN"] == "false"
    assert first["NATS_URL"] == "nats://n:1"
