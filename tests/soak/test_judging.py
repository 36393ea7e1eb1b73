"""The judgement of a soak, with leaks that are planted and noise that is none."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import msgspec
import pytest

from tests.soak import judging
from tests.soak.judging import fit, judged, trends
from tests.soak.samples import Sample, Worker

COUNT = 240  # 20 minutes
JOINS_PER_SAMPLE = 25  # of one worker
LEVEL = 60 << 20
PAGE = 4096

Change = Callable[[int], dict[str, int]]  # what is added, by the number of the sample


def samples(*changes: Change, count: int = COUNT) -> list[Sample]:
    """A right run, but for what is added to the worker of slot 1."""
    dice = Random(1)
    found = []
    for index in range(count):
        connections = dice.randint(240, 260)
        right = Worker(0, 100, LEVEL, 20 + connections, 3, 7, connections, connections)
        other = msgspec.structs.replace(right, slot=1, pid=101)
        for change in changes:
            more = {name: getattr(other, name) + value for name, value in change(index).items()}
            other = msgspec.structs.replace(other, **more)
        both = 2 * connections
        found.append(
            Sample(5.0 * (index + 1), both, both, both, 0, 50 * index, 1000 * index, 0, 0, (right, other))
        )
    return found


def noise(seed: int) -> Change:
    """Memory that comes and goes by up to 1 %, a request that is just being answered."""
    dice = Random(seed)

    def change(_: int) -> dict[str, int]:
        busy = int(dice.random() < 0.1)
        pages = dice.randrange(LEVEL // 100 // PAGE)
        return {"rss_bytes": pages * PAGE, "descriptors": busy, "greenlets": busy}

    return change


def steps(index: int) -> dict[str, int]:
    """Memory that rises in ever rarer steps, as an allocator's high-water mark."""
    return {"rss_bytes": int(math.log2(index + 1)) * 25 * PAGE}


def leak(**per_join: float) -> Change:
    """So much of each connection stays."""
    return lambda index: {name: int(index * JOINS_PER_SAMPLE * value) for name, value in per_join.items()}


def leaking(found: list[Sample]) -> set[tuple[int, str]]:
    """Slot and name of what leaks."""
    return {(trend.slot, trend.what) for trend in trends(found) if trend.leaks}


@pytest.mark.parametrize("seed", range(20))
def test_what_does_not_grow_is_steady(seed: int) -> None:
    """Noise, and the steps of an allocator, are no leak."""
    assert leaking(samples(noise(seed))) == set()
    assert leaking(samples(noise(seed), steps)) == set()
    assert leaking(samples(steps)) == set()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("what", "planted"),
    [
        ("memory", leak(rss_bytes=300)),
        ("descriptors", leak(descriptors=1 / 1000)),
        ("threads", leak(threads=1 / 1000)),
        ("greenlets", leak(greenlets=1 / 1000)),
    ],
)
def test_a_planted_leak_is_found(what: str, planted: Change, seed: int) -> None:
    """300 bytes of each connection, or one of anything in a thousand; and only there."""
    assert leaking(samples(planted)) == {(1, what)}
    assert leaking(samples(noise(seed), planted)) == {(1, what)}


def test_a_leak_of_connections_is_none_of_descriptors() -> None:
    """More clients have more descriptors; what is judged is what is there besides."""
    assert leaking(samples(lambda index: {"descriptors": index, "connections": index})) == set()


def test_the_warm_up_is_left_out() -> None:
    """What grows in the first quarter alone has not leaked."""
    found = samples(lambda index: {"rss_bytes": min(index, COUNT // 4 - 1) * 100 * PAGE})
    assert len(judged(found)) == COUNT * 3 // 4 + 1
    assert leaking(found) == set()


def test_a_worker_that_was_replaced_is_not_judged() -> None:
    """A line through two processes means nothing; that there were two is a fault."""
    found = samples(lambda index: {"pid": int(index > COUNT // 2)})
    assert trends(found) == []
    assert len(judging.faults(found)) == COUNT // 2 - 1


def test_a_short_run_is_not_judged() -> None:
    """With a few samples a line says nothing, and nothing is said."""
    assert trends([]) == []
    assert trends(samples(leak(rss_bytes=10_000), count=14)) == []


def test_the_bound_of_memory_is_by_the_hour() -> None:
    """A run of two hours may grow twice as much as one of an hour, which may grow as much as a short one."""
    bounds = [trends(samples(count=count))[0].bound for count in (240, 720, 2 * 960)]
    seconds = 5.0 * 2 * 960 * 0.75
    assert bounds == pytest.approx([LEVEL * 0.01, LEVEL * 0.01, LEVEL * 0.01 * seconds / 3600], rel=0.01)


def test_the_fit() -> None:
    """A line through points that lie on one has no error; the textbook's example has the textbook's."""
    exact = fit([0, 1, 2, 3], [1, 3, 5, 7])
    assert (exact.intercept, exact.slope) == pytest.approx((1, 2))
    assert exact.error == pytest.approx(0, abs=1e-9)
    # Residuals that change their sign with each point are not correlated: the plain standard error.
    line = fit([0, 1, 2, 3, 4, 5], [1, -1, 1, -1, 1, -1])
    square = sum((y - line.intercept - line.slope * x) ** 2 for x, y in enumerate([1, -1, 1, -1, 1, -1]))
    assert line.error == pytest.approx(math.sqrt(square / 4 / 17.5))


def test_alike_neighbours_widen_the_error() -> None:
    """A slow wave says less than as many points that have nothing to do with each other."""
    dice = Random(1)
    wave = [math.sin(x / 10) for x in range(100)]
    shuffled = dice.sample(wave, len(wave))
    assert fit(range(100), wave).error > 3 * fit(range(100), shuffled).error


# -- what must be exact --------------------------------------------------------------------------------


def test_a_right_run_has_no_faults() -> None:
    """Nor has a run without samples."""
    assert judging.faults(samples(noise(1))) == []
    assert judging.faults([]) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shared": 1}, "at 10 s counts differ: clients 4, board 1, strategies 4, kernel 4, missing 0"),
        ({"established": 5}, "kernel 5"),
        ({"open": 3}, "clients 3"),
        ({"missing": 2}, "missing 2"),
        ({"differences": 3}, "at 10 s 3 differences were reconciled"),
        ({"refused": 4}, "at 10 s 4 were refused"),
        ({"workers": (Worker(0, 9, 1, 1, 1, 1, 4, 4),)}, "other workers run"),
        ({"workers": (Worker(0, 1, 1, 1, 1, 1, 4, 3),)}, "strategies 3"),
    ],
)
def test_one_wrong_count_is_a_fault(change: dict[str, object], words: str) -> None:
    """Whoever counts wrong, at whichever moment: it is said once, with all counts."""
    right = Sample(5.0, 4, 4, 4, 0, 4, 0, 0, 0, (Worker(0, 1, 1, 1, 1, 1, 4, 4),))
    wrong = msgspec.structs.replace(right, seconds=10.0, **change)
    [fault] = judging.faults([right, wrong])
    assert words in fault
