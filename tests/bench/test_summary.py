"""From results to rows."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.summary import Row, faults, paired_ratio, rows, spread
from tests.bench.results import TALLY, impossible, result, void


def row(table: list[Row], arm: str) -> Row:
    """The row of an arm."""
    return next(each for each in table if each.arm == arm)


def median(of: Row, name: str) -> float:
    """The median of a figure that must be there."""
    value = of.figures[name]
    assert value is not None
    return value.median


def test_medians_and_ratios_by_round() -> None:
    """Each arm is set against the reference in the same round, whatever the machine did in others."""
    results = [result("ref", number, cost) for number, cost in enumerate([1.0, 10.0, 3.0], 1)]
    results += [result("arm", number, cost) for number, cost in enumerate([2.0, 20.0, 6.0], 1)]
    arm = row(rows(results, "ref"), "arm")
    assert median(arm, "cpu_us_per_message") == 6.0
    assert arm.ratio is not None
    assert (arm.ratio.lower, arm.ratio.upper) == pytest.approx((2.0, 2.0))
    assert arm.counted == 3


def test_void_rounds_are_left_out_and_named() -> None:
    """A void round moves no figure, takes no part in ratios and leaves a note."""
    results = [
        result("ref", 1, 1.0),
        result("ref", 2, 1.0),
        result("arm", 1, 3.0),
        void("arm", 2, "client busy"),
    ]
    arm = row(rows(results, "ref"), "arm")
    assert median(arm, "cpu_us_per_message") == 3.0
    assert arm.counted == 1
    assert arm.ratio is not None
    assert arm.ratio.pairs == 1
    assert list(arm.notes) == ["void: client busy"]


def test_what_could_not_be_tried_has_a_row() -> None:
    """An arm that the limits forbid is in the table, with the limit."""
    arm = row(rows([impossible("arm", 1, "open files"), impossible("arm", 2, "open files")], "ref"), "arm")
    assert (arm.counted, list(arm.notes)) == (0, ["impossible: open files (x2)"])
    assert arm.figures["cpu_us_per_message"] is None
    assert arm.ratio is None


def test_no_reference_no_ratio() -> None:
    """Without the reference arm there are figures all the same."""
    arm = row(rows([result("arm", 1, 3.0)], "ref"), "arm")
    assert arm.ratio is None
    assert median(arm, "p99_ms") == 3.0


def test_idle_is_compared_by_connection() -> None:
    """Where no message is delivered, the CPU per connection is what is compared."""
    idle: dict[str, Any] = {"cpu_user_us_per_message": None, "cpu_system_us_per_message": None}
    results = [
        result("ref", 1, None, "idle", **idle),
        result("arm", 1, None, "idle", **idle, cpu_us_per_connection_second=21.0),
    ]
    arm = row(rows(results, "ref"), "arm")
    assert arm.ratio is not None
    assert arm.ratio.estimate == pytest.approx(3.0)


def test_scenarios_are_kept_apart() -> None:
    """An arm has a row in each scenario it was tried in."""
    table = rows([result("arm", 1, 1.0), result("arm", 1, 9.0, "burst")], "ref")
    assert [(each.scenario, median(each, "cpu_us_per_message")) for each in table] == [
        ("single", 1.0),
        ("burst", 9.0),
    ]


def test_faults_saturation_and_noise_are_noted() -> None:
    """What the checker found and what the machine did stands in the notes."""
    good = result("arm", 1, 1.0)
    final = {
        **good["final"],
        "tally": {**TALLY, "missing": 4, "duplicates": 1},
        "tail_missing": 2,
        "closed": 3,
    }
    bad = {**good, "final": final, "delivered_share": 0.5, "noisy": True, "foreign_cores": 1.25}
    assert faults(bad) == {"missing": 6, "duplicates": 1, "closed by server": 3}
    assert list(row(rows([bad], "ref"), "arm").notes) == [
        "6 missing",
        "1 duplicates",
        "3 closed by server",
        "saturated: 50% of what was due",
        "noisy: others used up to 1.2 cores in 1 of 1 rounds",
    ]


def test_what_is_still_on_its_way_is_not_called_lost() -> None:
    """A server that had not sent everything when time was up is told from one that lost messages."""
    good = result("arm", 1, 1.0)
    late = {**good, "drained": False, "final": {**good["final"], "tail_missing": 9}}
    assert faults(late) == {"undelivered when time was up": 9}


def test_the_fate_of_stalled_clients_is_noted() -> None:
    """Clients that stopped reading are no fault of the arm; what it did with them is said."""
    good = result("arm", 1, 1.0)
    stalled = {
        "stalled_tally": {**TALLY, "missing": 30, "told": 7},
        "stalled_closed": 5,
        "after_close": 1_200,
        "closes": {"4008": 5},
        "gap_notices": 2,
    }
    noted = {**good, "final": {**good["final"], **stalled}}
    assert faults(noted) == {}
    assert list(row(rows([noted], "ref"), "arm").notes) == [
        "stalled clients: 5 closed (4008: 5), 30 messages missed, 7 told, 1,200 after a close"
    ]


def test_a_sum_that_does_not_come_out_is_a_fault() -> None:
    """What was delivered and told must be what was published, for each client; stalled ones have a note."""
    good = result("arm", 1, 1.0)
    bad = {**good, "final": {**good["final"], "unequal": 2}}
    assert faults(bad) == {"clients whose delivered + told is not what was published": 2}
    final = {**good["final"], "stalled_closed": 1, "closes": {"4008": 1}, "stalled_unequal": 1}
    (note,) = row(rows([{**good, "final": final}], "ref"), "arm").notes
    assert note.endswith("1 clients whose sum is not what was published")


def test_what_is_told_is_not_missing() -> None:
    """Messages that gaps name are in a note, and no fault."""
    good = result("arm", 1, 1.0)
    told = {**good, "final": {**good["final"], "tally": {**TALLY, "told": 9}}}
    assert faults(told) == {}
    assert list(row(rows([told], "ref"), "arm").notes) == [
        "9 messages left out and told, 100 delivered since the window began"
    ]


def test_a_scenario_is_set_against_its_baseline_round_by_round() -> None:
    """Ratios to the baseline pair the same arm in the same round; void rounds take no part."""
    results = [result("arm", number, cost) for number, cost in enumerate([1.0, 10.0, 5.0], 1)]
    wide = [result("arm", number, cost, "wide") for number, cost in enumerate([2.0, 20.0, 7.0], 1)]
    wide[2]["status"] = "void"
    table = rows([*results, *wide, result("other", 1, 9.0, "wide")], "ref")
    (against,) = row([each for each in table if each.scenario == "wide"], "arm").against
    assert against.baseline == "single"
    assert against.cost is not None
    assert (against.cost.lower, against.cost.upper, against.cost.pairs) == pytest.approx((2.0, 2.0, 2))
    assert against.p99 is not None
    assert against.p99.estimate == pytest.approx(1.0)
    (other,) = row(table, "other").against
    assert (other.cost, other.p99) == (None, None)
    assert row(table, "arm").against == [], "single has no baseline"


def test_no_baseline_in_the_run_no_ratio() -> None:
    """A scenario that runs without its baselines is set against nothing."""
    assert rows([result("arm", 1, 1.0, "wide")], "ref")[0].against == []


def test_an_overloaded_feed_is_noted() -> None:
    """Where more is published than may be carried, the notes say who was the limit and what was dropped."""
    overload = {
        "feed_held_seconds": 1.5,
        "feed_messages": 90_000,
        "feed_overflow": 12,
        "feed_gaps": 0,
        "limits": ["client used 95% of a core"],
    }
    assert list(rows([result("arm", 1, 1.0, "ingest", **overload)], "ref")[0].notes) == [
        "feed held back for 1500 ms at most; 90,000 messages taken, 12 overflowed; 0 gaps in the stream",
        "limit of the bench: client used 95% of a core",
    ]


positive = st.floats(min_value=1e-3, max_value=1e3)


def test_spread_of_nothing_is_nothing() -> None:
    """No values have no median."""
    assert spread([]) is None


def test_spread_has_median_and_range() -> None:
    """The median is the middle, the range its ends."""
    found = spread([3.0, 1.0, 7.0])
    assert found is not None
    assert (found.median, found.lowest, found.highest, found.count) == (3.0, 1.0, 7.0, 3)


@pytest.mark.parametrize(
    ("pairs", "confidence"),
    [(1, 0.0), (2, 0.5), (5, 0.9375), (6, 0.96875), (8, 0.9609375), (10, 0.951171875)],
)
def test_confidence_is_the_exact_one(pairs: int, confidence: float) -> None:
    """The interval states what it has: under 95 % for fewer than six pairs, just above for more."""
    found = paired_ratio([float(2 + index) for index in range(pairs)], [1.0] * pairs)
    assert found is not None
    assert found.confidence == pytest.approx(confidence)


def test_a_steady_ratio_is_found() -> None:
    """Twice the cost in each round is a ratio of two with no width, and differs from one."""
    references = [1.0, 5.0, 2.0, 9.0, 4.0, 3.0]
    found = paired_ratio([2 * value for value in references], references)
    assert found is not None
    assert (found.estimate, found.lower, found.upper) == pytest.approx((2.0, 2.0, 2.0))
    assert found.differs


def test_five_pairs_never_differ() -> None:
    """Five rounds cannot reach 95 %, however far apart the arms lie."""
    found = paired_ratio([10.0] * 5, [1.0] * 5)
    assert found is not None
    assert not found.differs


def test_one_wild_round_does_not_move_the_estimate() -> None:
    """A round disturbed a hundredfold leaves the estimate near the rest."""
    found = paired_ratio([1.0, 1.1, 0.9, 1.05, 0.95, 100.0, 1.0, 1.02], [1.0] * 8)
    assert found is not None
    assert 0.9 < found.estimate < 1.2


def test_no_pairs_no_ratio() -> None:
    """Without rounds in common there is nothing to say."""
    assert paired_ratio([], []) is None


def test_lists_must_pair() -> None:
    """Values without a reference are an error."""
    with pytest.raises(ValueError, match="zip"):
        paired_ratio([1.0], [])


@given(st.lists(st.tuples(positive, positive), min_size=1, max_size=9))
def test_swapping_the_arms_inverts_the_ratio(pairs: list[tuple[float, float]]) -> None:
    """The ratio of b to a is one over that of a to b, interval and all."""
    there = paired_ratio([a for a, _ in pairs], [b for _, b in pairs])
    back = paired_ratio([b for _, b in pairs], [a for a, _ in pairs])
    assert there is not None
    assert back is not None
    assert there.estimate * back.estimate == pytest.approx(1.0)
    assert there.lower * back.upper == pytest.approx(1.0)
    assert there.lower <= there.estimate <= there.upper


def test_an_arm_against_itself_is_seldom_called_different() -> None:
    """Of 400 comparisons without a difference, no more than some 5 % are called one."""
    noise = random.Random(7)
    wrong = 0
    for _ in range(400):
        found = paired_ratio([math.exp(noise.gauss(0, 0.2)) for _ in range(8)], [1.0] * 8)
        assert found is not None
        wrong += found.differs
    assert wrong / 400 < 0.08
