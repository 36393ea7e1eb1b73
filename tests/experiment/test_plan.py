"""Plans: what they inherit, and one line for everything that can be wrong."""

from __future__ import annotations

import msgspec
import pytest

from odinws.experiment.plan import Feed, Load, Plan, PlanError, parse

TEXT = """
name = "strategies"
question = "Which strategy costs least?"
rounds = 8
[feed]
rate = 50
[load]
connections = 100
[[arm]]
name = "one"
baseline = true
settings = { WS_WORKERS = 1, WS_COMPRESSION = false, WS_SHARD_STRATEGY = "single-lock" }
[[arm]]
name = "two"
[arm.feed]
spacing = "even"
[minimum_effect]
delivery_p99_ms = 0.5
"""


def test_arms_inherit_feed_and_load() -> None:
    """What an arm does not override it has from the plan; what the plan does not say is usual."""
    plan = parse(TEXT, "plan.toml")
    one, two = plan.arms
    assert plan.feed == one.feed == Feed(rate=50)
    assert two.feed == Feed(rate=50, spacing="even")
    assert one.load == two.load == Load(connections=100)
    assert (plan.mode, plan.rounds, plan.seed, plan.primary) == ("in-turn", 8, 1, "cpu_us_per_message")
    assert (plan.baseline, plan.others) == (one, (two,))


def test_settings_are_text_for_a_server() -> None:
    """Numbers and truth as an environment has them."""
    assert parse(TEXT, "plan.toml").baseline.environ == {
        "WS_WORKERS": "1",
        "WS_COMPRESSION": "false",
        "WS_SHARD_STRATEGY": "single-lock",
    }


def test_minimum_effect() -> None:
    """The plan's own, else the usual one."""
    plan = parse(TEXT, "plan.toml")
    assert plan.minimum("delivery_p99_ms") == 0.5
    assert plan.minimum("cpu_us_per_message") == 0.05


def test_a_plan_survives_its_record() -> None:
    """As JSON and back it is the same."""
    plan = parse(TEXT, "plan.toml")
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[load]", "[load", "plan.toml: this is no TOML: "),
        ("rounds = 8", "roundz = 8", "plan.toml: roundz = 8: no field has this name, did you mean rounds?"),
        ("rounds = 8", "rounds = 0", "plan.toml: rounds = 0: expected `int` >= 1"),
        ("rounds = 8", 'rounds = "8"', "plan.toml: rounds = '8': expected `int`, got `str`"),
        ("rounds = 8", "x = 8", "plan.toml: x = 8: no field has this name, there are name, question, mode,"),
        ("rounds = 8", 'mode = "both"', "plan.toml: mode = 'both': invalid enum value 'both'"),
        ("rounds = 8", "primary = 'cpu'", "plan.toml: primary = 'cpu': no measure has this name, there are "),
        ('name = "strategies"', "", "plan.toml: name: must be there"),
        ("[feed]\nrate = 50", "feed = 50", "plan.toml: feed = 50: expected `object`, got `int`"),
        ("rate = 50", "rate = -1", "plan.toml: feed.rate = -1: expected `float` >= 0.0"),
        ('spacing = "even"', "rate = -1", "plan.toml: arm[1].feed.rate = -1: expected `float` >= 0.0"),
        (
            '[arm.feed]\nspacing = "even"',
            "feed = 1",
            "plan.toml: arm[1].feed = 1: expected `object`, got `int`",
        ),
        (
            'spacing = "even"',
            "spaces = 1",
            "plan.toml: arm[1].feed.spaces = 1: no field has this name, did you mean spacing?",
        ),
        ('name = "two"', "", "plan.toml: arm[1].name: must be there"),
        ('name = "two"', 'name = "one"', "plan.toml: arm[1].name = 'one': another arm has this name"),
        ('name = "two"', 'name = "t w"', "plan.toml: arm[1].name = 't w': expected `str` matching regex"),
        ("baseline = true", "", "plan.toml: arm: expected `baseline = true` in exactly one arm"),
        (
            'name = "two"',
            'name = "two"\nbaseline = true',
            "plan.toml: arm = ['one', 'two']: expected `baseline = true` in exactly one arm",
        ),
        (
            "WS_WORKERS = 1",
            "WS_WORKERS = [1]",
            "plan.toml: arm[0].settings = {'WS_WORKERS': [1], 'WS_COMPRESSION': False, ",
        ),
        (
            "WS_WORKERS = 1",
            "workers = 1",
            "plan.toml: arm[0].settings.workers = 1: expected the name of an environment variable",
        ),
        (
            "WS_WORKERS = 1",
            'NATS_URL = "x"',
            "plan.toml: arm[0].settings.NATS_URL = 'x': the experiment sets this one itself: take it out",
        ),
        (
            "delivery_p99_ms = 0.5",
            "delivery_p98_ms = 0.5",
            "plan.toml: minimum_effect.delivery_p98_ms = 0.5: no measure has this name, did you mean ",
        ),
        (
            "delivery_p99_ms = 0.5",
            "delivery_p99_ms = -1",
            "plan.toml: minimum_effect = {'delivery_p99_ms': -1}: expected `float` >= 0.0",
        ),
    ],
)
def test_errors_are_one_line(old: str, new: str, expected: str) -> None:
    """File, field, value, what is allowed."""
    assert old in TEXT
    with pytest.raises(PlanError) as caught:
        parse(TEXT.replace(old, new, 1), "plan.toml")
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arms", ["arm = 3", "arm = [3, 4]", "", "[[arm]]\nname = 'a'\nbaseline = true"])
def test_arms_that_are_none(arms: str) -> None:
    """An experiment has two arms at least."""
    with pytest.raises(PlanError, match=r"^plan.toml: arm"):
        parse(f"name = 'a'\nquestion = 'b'\n{arms}", "plan.toml")
