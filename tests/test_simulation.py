"""`odinws.simulation`: the predecessor's table, row by row, its rhythm, and what ours does under the same."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import pytest

from odinws.admission.guard import Limits
from odinws.simulation import __main__ as command
from odinws.simulation.model import CLEAN, LOOPING, Guarded, Hog, Load, Row, Trace, rhythm, run, swing
from odinws.simulation.scenarios import BEHIND, HOG, LIMITS, OBSERVED, SCENARIOS, SEED, SETTLED_SECONDS, play

PICTURE = Path(__file__).parents[1] / "docs" / "investigation.svg"
SEEDS = range(SEED, SEED + 3)


@functools.cache
def trace(name: str, seed: int = SEED) -> Trace:
    """What happens in a scenario."""
    return play(name, seed)


# -- the predecessor -------------------------------------------------------------------------------


@pytest.mark.parametrize(("index", "seen"), list(enumerate(OBSERVED)), ids=str)
def test_the_predecessors_table(index: int, seen: Row) -> None:
    """Failures are exact; the rest within what was under way, a batch of ten, and the CPU within 9 points."""
    row = trace("predecessor").rows(70)[index]
    assert row.seconds == seen.seconds
    assert row.failed == seen.failed
    assert row.active == seen.active + (10 if seen.seconds == 70 else 0)
    assert abs(row.attempts - seen.attempts) <= 10
    assert abs(row.cpu - seen.cpu) < 9


def test_the_predecessor_ends_at_4000() -> None:
    """7,000 attempts, 3,000 of them refused."""
    last = trace("predecessor").steps[-1]
    assert (last.attempts, last.connections, last.refused) == (7000, 4000, 3000)


@pytest.mark.parametrize(
    ("name", "seconds"), [("predecessor", 30.0), ("predecessor, held 5 s", 10.0)], ids=["15 s", "5 s"]
)
def test_the_rhythm_is_twice_the_hold(name: str, seconds: float) -> None:
    """CPU between about 18 and 100 %, and the state changes once per hold."""
    seen = trace(name)
    assert len(rhythm(seen)) >= 7
    assert set(rhythm(seen)) == {seconds}
    means = [seen.cpu(second) for second in range(SETTLED_SECONDS, 250)]
    assert 17 <= min(means) <= 21
    assert max(means) == 100


def test_without_the_loop_the_predecessor_admits_all() -> None:
    """As it was reported of 19 October: 6,983 of 7,000, at 28.6 % CPU."""
    seen = trace("predecessor, clean feed")
    assert seen.steps[-1].connections == 7000
    assert seen.cpu(250) == pytest.approx(28.6, abs=0.5)


def test_a_hog_shuts_the_predecessor() -> None:
    """Nobody gets in while it lasts."""
    assert trace("predecessor, clean feed, hog").longest_without_entry() > 45


# -- ours ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_ours_admits_all_at_once(seed: int) -> None:
    """7,000 of 7,000 at the first attempt, with no change of state and no swing."""
    seen = trace("ours", seed)
    assert (seen.steps[-1].connections, seen.steps[-1].refused) == (7000, 0)
    assert seen.changes() == []
    assert swing(seen, SETTLED_SECONDS) < 1


@pytest.mark.parametrize("seed", SEEDS)
def test_ours_does_not_oscillate_where_the_predecessor_does(seed: int) -> None:
    """A load that exceeds the host: one change of state, no swing, never shut, and at last all are in."""
    seen = trace("ours, looping feed", seed)
    assert len(seen.changes()) == 1
    assert swing(seen, SETTLED_SECONDS) < 1
    assert seen.longest_without_entry() <= 2
    assert seen.steps[-1].connections == 7000


@pytest.mark.parametrize("seed", SEEDS)
def test_ours_lives_through_a_hog(seed: int) -> None:
    """In and out of the state once, never shut for 2 s, and all are in within 45 s of its end."""
    seen = trace("ours, hog", seed)
    entered, left = seen.changes()
    assert HOG.start < entered[0] < HOG.start + 6
    assert HOG.end < left[0] < HOG.end + 6
    assert seen.longest_without_entry() <= 2
    during = (
        seen.steps[round(HOG.end * 10) - 1].connections - seen.steps[round(HOG.start * 10) + 100].connections
    )
    assert during == pytest.approx(50 * LIMITS.floor, rel=0.1)
    assert seen.steps[round(HOG.end * 10) + 450].connections == 7000
    assert swing(seen, 130) < 1


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["all vanish", "slow disk", "stopped", "collections"])
def test_no_stall_of_our_own_refuses_anybody(name: str, seed: int) -> None:
    """While the CPU is free; who vanished is back, and nobody had to come twice."""
    seen = trace(f"ours, {name}", seed)
    assert (seen.steps[-1].connections, seen.steps[-1].refused) == (7000, 0)
    assert seen.steps[-1].attempts == (14_000 if name == "all vanish" else 7000)
    assert seen.changes() == []


@pytest.mark.parametrize("seed", SEEDS)
def test_workers_that_are_behind_admit_few(seed: int) -> None:
    """Although they leave the CPU free: never shut, and all are in soon after it."""
    seen = trace("ours, behind", seed)
    end = BEHIND[-1].start + BEHIND[-1].seconds
    restricted = [step.now for step in seen.steps if step.restricted]
    assert BEHIND[0].start < restricted[0] < BEHIND[0].start + 4
    assert {step.restricted for step in seen.steps if 30 < step.now < end} == {True}
    assert end < restricted[-1] < end + 15  # what the feed has held back uses the CPU
    assert seen.longest_without_entry() <= 2
    inside = {step.now: step.connections for step in seen.steps}
    assert inside[80.0] - inside[30.0] < 0.7 * 50 * 100  # of 100 a second
    assert seen.steps[round(end * 10) + 450].connections == 7000


@pytest.mark.parametrize("percent", range(40, 101, 10))
def test_no_level_of_load_makes_ours_oscillate(percent: int) -> None:
    """Five minutes of a steady hog of any size: at most in once and out once."""
    seen = run(Guarded(LIMITS), Load(CLEAN, 330, retries=True, hog=Hog(20, 320, percent)), SEED)
    assert len(seen.changes()) <= 2
    assert seen.longest_without_entry() <= 2


def test_the_cap_holds() -> None:
    """With more clients than connections the rest stays outside."""
    limits = Limits(max_connections=500, max_greenlets=1000)
    seen = run(Guarded(limits), Load(CLEAN, 30, clients=900), SEED)
    assert (seen.steps[-1].connections, seen.steps[-1].refused) == (500, 400)
    assert seen.longest_without_entry() == pytest.approx(4.0)


# -- the model and the command ---------------------------------------------------------------------


def test_the_same_seed_gives_the_same() -> None:
    """And another one does not."""
    load = Load(LOOPING, 100, retries=True)
    assert run(Guarded(LIMITS), load, 1) == run(Guarded(LIMITS), load, 1)
    assert run(Guarded(LIMITS), load, 1) != run(Guarded(LIMITS), load, 2)


def test_the_command_prints_what_it_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The seven rows beside what was observed, a line per scenario, and how many seeds do it."""
    monkeypatch.setattr(sys, "argv", ["simulation", "--seeds", "87"])
    command.main()
    out = capsys.readouterr().out
    assert out.count(" s   ") == len(OBSERVED)
    for name in SCENARIOS:
        assert f"\n{name}: " in out
    assert " of 87 seeds give the seven rows; connections at the end of the ramp: " in out


def test_the_picture_is_that_of_the_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`--out` draws it; docs/investigation.svg shows the same lines."""
    drawn = tmp_path / "drawn.svg"
    monkeypatch.setattr(sys, "argv", ["simulation", "--out", str(drawn)])
    command.main()
    assert drawn.read_text().count("<path") == PICTURE.read_text().count("<path")
    assert "predecessor, sample held 5 s" in drawn.read_text()
