"""The proofs at a small size."""

from __future__ import annotations

from tests.resuming import chaos, storm


def test_chaos() -> None:
    """Sixty clients for twelve seconds, two workers killed, NATS restarted, a reload."""
    plan = chaos.Plan(clients=60, seconds=12.0, kill_seconds=2.5, stay_seconds=3.0, seed=3)
    proof = chaos.run(plan)
    assert proof.broken == []


def test_small_stream() -> None:
    """The stream keeps half a second: what nobody has any more is named, exactly."""
    plan = chaos.Plan(
        clients=60, seconds=9.0, kill_seconds=3.0, stay_seconds=1.5, seed=4, stream_messages=100
    )
    proof = chaos.run(plan)
    assert proof.broken == []


def test_last_value() -> None:
    """The stream keeps the newest message of each channel: what was between is named."""
    plan = chaos.Plan(clients=60, seconds=9.0, kill_seconds=3.0, stay_seconds=1.5, seed=5, last_value=True)
    proof = chaos.run(plan)
    assert proof.broken == []


def test_storm() -> None:
    """Half of six hundred come back at once."""
    proof = storm.run(storm.Plan(clients=600, calm_seconds=2.0))
    assert proof.broken == []
