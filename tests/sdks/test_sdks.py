"""Official clients in a short chaos."""

from __future__ import annotations

from tests.resuming.chaos import Plan
from tests.sdks.guests import run


def test_nothing_is_lost() -> None:
    """Four of each kind for twelve seconds; workers killed, NATS restarted, a reload."""
    proof = run(Plan(clients=20, seconds=12.0, kill_seconds=3.0, stay_seconds=3.0, seed=6), 4)
    assert proof.broken == []


def test_small_stream() -> None:
    """The stream keeps a tenth of a second: the application of each kind knows that it missed something."""
    plan = Plan(
        clients=20,
        seconds=9.0,
        kill_seconds=3.0,
        stay_seconds=1.5,
        seed=7,
        stream_messages=20,
        settings={"WS_WORKERS": "1"},  # while it starts again, nobody is served
    )
    assert run(plan, 4).broken == []
