"""`odinws.rollout.watch`, `comparison`, `record`: on, wait or back, in a time of their own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from odinws.rollout import commands, flags
from odinws.rollout import watch as watch_module
from odinws.rollout.comparison import GUARDRAILS, IN_A_ROW, GroupStats, Judge, between, total
from odinws.rollout.fleet import Fleet, FleetError
from odinws.rollout.record import Record
from odinws.rollout.watch import Pace, Watch
from tests.rollout.scene import VARIANT, flags_file
from tests.rollout.world import World

PACE = Pace()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Four workers without trouble, none with the variant."""
    made = World(str(flags_file(tmp_path)))
    monkeypatch.setattr(watch_module, "time", made.clock)
    return made


class Told:
    """What a watch said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, line: str, _: str) -> None:
        self.lines.append(line)


def watched(world: World, pace: Pace = PACE, told: Told | None = None) -> Record:
    """A whole watch of this world."""
    fleet: Fleet = world  # type: ignore[assignment]
    return Watch(fleet, world.path, VARIANT, pace, told or Told()).run()


def share(world: World) -> float:
    """What the file says."""
    return (flags.shares(flags.read(world.path)) or {}).get(VARIANT, 0.0)


def test_a_variant_without_trouble_gets_all(world: World) -> None:
    """5 % is no worker and is skipped; each other step is good."""
    told = Told()
    record = watched(world, told=told)
    assert (record.verdict, record.percent, share(world)) == ("done", 100, 100)
    assert [(step.percent, step.outcome) for step in record.steps] == [
        (5, "skipped"),
        (25, "good"),
        (50, "good"),
        (100, "good"),
    ]
    assert "5 %: skipped, it changes no worker" in told.lines
    assert [sum(step.workers.values()) for step in record.steps] == [0, 1, 2, 4]


@pytest.mark.parametrize("seed", range(20))
def test_noise_does_not_trip_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Two groups that are alike but for noise of half of every rate: twenty of twenty get through."""
    world = World(str(flags_file(tmp_path)), seed=seed)
    world.noise = 0.5
    monkeypatch.setattr(watch_module, "time", world.clock)
    assert watched(world).verdict == "done"


@pytest.mark.parametrize(
    ("name", "rate", "words"),
    [
        ("cpu_seconds", 0.06, "CPU per delivered message"),
        ("lag", 0.1, "delivery lag"),
        ("long_turns", 3.0, "iterations of an event loop"),
        ("undelivered", 10.0, "undelivered or shed"),
        ("refused", 2.0, "upgrades refused"),
        ("errors", 2.0, "an error of ours"),
        ("differences", 0.4, "differences found by reconciliation"),
    ],
)
def test_each_guard_sets_it_back(world: World, name: str, rate: float, words: str) -> None:
    """What hurts is named, the share is 0 again within a minute, and the workers follow."""
    world.rates[VARIANT][name] = rate
    began = world.clock.now
    record = watched(world)
    assert record.verdict == "set back"
    assert words in record.reason
    assert record.steps[-1].outcome == "worse"
    assert (record.percent, share(world)) == (0, 0)
    assert world.clock.now - began < 60
    assert all(worker.variant != VARIANT for worker in world.read()[0].workers)


def test_workers_that_die_set_it_back(world: World) -> None:
    """Two that end without a reason are no chance."""
    for second in range(8, 60, 7):
        world.clock.at.append((world.clock.now + second, lambda: world.kill(VARIANT)))
    record = watched(world)
    assert record.verdict == "set back"
    assert "workers that ended" in record.reason


def test_trouble_of_all_is_none_of_the_variant(world: World) -> None:
    """A machine in trouble troubles both groups."""
    for rates in world.rates.values():
        rates |= {"lag": 0.5, "cpu_seconds": 0.5, "long_turns": 5.0, "refused": 3.0, "undelivered": 5.0}
    assert watched(world).verdict == "done"


def test_trouble_that_passes_is_waited_for(world: World) -> None:
    """Two bad windows are not three: it goes on when they are over."""
    world.rates[VARIANT]["lag"] = 0.5
    world.clock.at.append((world.clock.now + 26, lambda: world.rates[VARIANT].update(lag=0.005)))
    record = watched(world)
    assert record.verdict == "done"


@pytest.mark.parametrize(("connections", "delivered"), [(20, 1000.0), (400, 5.0), (0, 0.0)])
def test_too_few_data_wait(world: World, connections: int, delivered: float) -> None:
    """With few clients or messages nothing is judged, bad or good: the share stays, for as long as asked."""
    world.connections = connections // 4
    for rates in world.rates.values():
        rates["delivered"] = delivered
    world.rates[VARIANT] |= {"cpu_seconds": 0.5, "lag": 1.0}
    record = watched(world, Pace(patience_seconds=60))
    assert (record.verdict, record.percent, share(world)) == ("waiting", 25, 25)
    assert "are needed" in record.reason
    assert 60 < record.seconds < 120


def test_the_last_step_has_a_reference(world: World) -> None:
    """With all workers on the variant, those of the step before stand for the others."""
    for number in range(200):  # it hurts from the last step on
        world.clock.at.append((world.clock.now + number, lambda: _hurt_if_all(world)))
    record = watched(world)
    assert record.verdict == "set back"
    assert record.steps[-1].percent == 100


def _hurt_if_all(world: World) -> None:
    if all(worker.variant == VARIANT for worker in world.read()[0].workers):
        world.rates[VARIANT]["cpu_seconds"] = 0.2


def test_one_worker_is_measured_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one worker there is one step, and what it did before stands for the others."""
    for cost, verdict in ((0.02, "done"), (0.2, "set back")):
        world = World(str(flags_file(tmp_path)), places=1)
        world.rates[VARIANT]["cpu_seconds"] = cost
        monkeypatch.setattr(watch_module, "time", world.clock)
        record = watched(world)
        assert record.verdict == verdict
        assert [step.outcome for step in record.steps[:3]] == ["skipped"] * 3


def test_a_fleet_that_does_not_follow(world: World) -> None:
    """Workers that never come up set it back."""
    world.stuck = True
    record = watched(world)
    assert (record.verdict, share(world)) == ("set back", 0)
    assert "did not come up" in record.reason


def test_a_fleet_that_falls_silent(world: World) -> None:
    """A moment of silence is borne, a long one sets it back."""
    world.clock.at.append((world.clock.now + 10, lambda: setattr(world, "silent", True)))
    world.clock.at.append((world.clock.now + 25, lambda: setattr(world, "silent", False)))
    assert watched(world).verdict == "done"
    flags_file(Path(world.path).parent)
    world.clock.at.append((world.clock.now + 10, lambda: setattr(world, "silent", True)))
    record = watched(world)
    assert (record.verdict, share(world)) == ("set back", 0)
    assert "silent" in record.reason


def test_another_hand(world: World, tmp_path: Path) -> None:
    """Whoever else sets the share is not overruled."""

    def other() -> None:
        flags_file(tmp_path, 75)

    world.clock.at.append((world.clock.now + 20, other))
    record = watched(world)
    assert (record.verdict, share(world)) == ("changed", 75)
    assert "75 %" in record.reason


def test_an_interrupt_leaves_the_share(world: World) -> None:
    """Ctrl-C ends the watch, not the rollout; what was seen is kept and marked."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    world.clock.at.append((world.clock.now + 20, interrupt))
    record = watched(world)
    assert (record.verdict, share(world)) == ("interrupted", 25)
    assert record.steps[-1].outcome == "interrupted"
    assert record.steps[-1].windows


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"flags_file": ""}, "start it with WS_FLAGS_FILE"),
        ({"problem": "not JSON"}, "use its flags: not JSON"),
    ],
)
def test_servers_that_can_not_follow(world: World, changes: dict[str, Any], words: str) -> None:
    """It says so before anything is changed."""
    with pytest.raises(FleetError, match=words):
        watch_module.check([replace(server, **changes) for server in world.read()])


def test_an_explicit_strategy_is_in_the_way(world: World) -> None:
    """WS_SHARD_STRATEGY would win over whatever is set."""
    [server] = world.read()
    fixed = tuple(replace(worker, reason="explicit") for worker in server.workers)
    with pytest.raises(FleetError, match="WS_SHARD_STRATEGY wins"):
        watch_module.check([replace(server, workers=fixed)])


def test_the_report(world: World, tmp_path: Path) -> None:
    """The answer first; the same in JSON; every window with its values."""
    world.rates[VARIANT]["cpu_seconds"] = 0.5
    out = tmp_path / "out"
    fleet: Fleet = world  # type: ignore[assignment]
    record = Watch(fleet, world.path, VARIANT, PACE, Told(), lambda record: record.save(out)).run()
    text = (out / "report.md").read_text()
    assert text.startswith(f"# {VARIANT}: set back\n\nSet back at 25 %: CPU per delivered message: ")
    assert "The flag stands at 0 %." in text
    result = json.loads((out / "result.json").read_text())
    assert result["verdict"] == "set back"
    assert result["reason"] == record.reason
    windows = result["steps"][1]["windows"]
    assert [window["counts"] for window in windows] == [False, False, True, True, True]
    assert all(set(window["variant"]) == {guardrail.name for guardrail in GUARDRAILS} for window in windows)


def test_tallies_of_groups(world: World) -> None:
    """Each worker counts for its group; one that is gone is a death; sums of windows add up."""
    flags_file(Path(world.path).parent, 50)
    for _ in range(40):
        world.read()
        world.clock.sleep(0.5)
    before = world.read()
    world.clock.sleep(10)
    mine, others = between(before, world.read(), VARIANT)
    assert (mine.workers, others.workers) == (2, 2)
    assert mine.seconds == 20
    assert mine.connections == 200
    assert 16_000 < mine.delivered < 24_000
    assert sum(mine.lag) > 0
    twice = total([mine, mine])
    assert (twice.delivered, twice.workers) == (2 * mine.delivered, 2)
    assert total([]) == GroupStats()
    world.kill(VARIANT)
    mine, others = between(before, world.read(), VARIANT)
    assert (mine.deaths, mine.workers, others.deaths) == (1, 1, 0)


def test_a_worker_with_few_clients_is_not_dear() -> None:
    """What costs the same for any number of clients falls on few of them: that is no fault of the variant."""
    judge = Judge(VARIANT, IN_A_ROW)
    for _ in range(IN_A_ROW):
        judge.add(
            GroupStats(1, 5.0, 20, cpu_seconds=0.15, delivered=1000),  # 0.1 for itself, 50 µs per message
            GroupStats(3, 15.0, 300, cpu_seconds=1.05, delivered=15_000),
        )
    assert (judge.worse(), judge.is_good()) == ("", True)


def test_a_report_that_can_not_be_written_ends_no_watch(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The flag must still be set back where the variant does harm."""
    (tmp_path / "file").touch()
    save = commands._saver(tmp_path / "file" / "report")
    record = watched(world)
    save(record)
    assert capsys.readouterr().out == "the report can't be written: Not a directory\n"
