"""`odinws.debug.profile`: the same profile for every tool."""

from __future__ import annotations

from odinws.debug.profile import SPEEDSCOPE_SCHEMA, Frame, Profile, collapsed, speedscope, tree


def profile(pid: int = 7) -> Profile:
    """Three samples of two stacks, one second each but for the last, which has two."""
    frames = [Frame("greenlet Hub.run"), Frame("run", "a.py", 3), Frame("burn;er", "b.py", 9)]
    return Profile(pid, 0.0, 9.0, 4.0, 0.1, 99, frames, [[0, 1], [0, 1, 2]], [0, 1, 1], [1.0, 1.0, 2.0])


def test_speedscope() -> None:
    """Frames once for all workers; samples in their order, by the stack, with their weights."""
    body = speedscope([profile(7), profile(8)], "a title")
    assert body["$schema"] == SPEEDSCOPE_SCHEMA
    assert body["shared"]["frames"] == [
        {"name": "greenlet Hub.run"},
        {"name": "run", "file": "a.py", "line": 3},
        {"name": "burn;er", "file": "b.py", "line": 9},
    ]
    assert [part["name"] for part in body["profiles"]] == ["worker 7", "worker 8"]
    for part in body["profiles"]:
        assert part["samples"] == [[0, 1], [0, 1, 2], [0, 1, 2]]
        assert part["weights"] == [1.0, 1.0, 2.0]
        assert (part["type"], part["unit"], part["startValue"], part["endValue"]) == (
            "sampled",
            "seconds",
            0,
            4.0,
        )


def test_collapsed() -> None:
    """One line per stack with microseconds; a semicolon in a name does not end it."""
    assert collapsed([profile()]).splitlines() == [
        "worker 7;greenlet Hub.run;run (a.py:3) 1000000",
        "worker 7;greenlet Hub.run;run (a.py:3);burn,er (b.py:9) 3000000",
    ]


def test_tree() -> None:
    """Times of callers include those of whom they call; what is too narrow to see is left out."""
    narrow = profile(8)
    narrow.weights = [0.0001, 0.0, 0.0]
    root = tree([profile(), narrow])
    assert (root["n"], root["v"]) == ("all workers", 4.0001)
    (worker,) = root["c"]
    assert (worker["n"], worker["v"]) == ("worker 7", 4.0)
    (kind,) = worker["c"]
    (run,) = kind["c"]
    assert (run["n"], run["v"], run["c"]) == (
        "run (a.py:3)",
        4.0,
        [{"n": "burn;er (b.py:9)", "v": 3.0, "c": []}],
    )
    assert tree([]) == {"n": "all workers", "v": 0.0, "c": []}


def test_hottest() -> None:
    """By their own time; a function that calls itself counts once."""
    one = profile()
    one.stacks[1] = [0, 1, 2, 2]
    assert one.hottest(1) == [{"place": "b.py:9 burn;er", "self_seconds": 3.0, "total_seconds": 3.0}]
    assert one.hottest(9)[1] == {"place": "a.py:3 run", "self_seconds": 1.0, "total_seconds": 4.0}
