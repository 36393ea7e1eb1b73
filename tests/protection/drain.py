"""The server stops while thousands are in."""

from __future__ import annotations

import signal
import subprocess
import time

from tests.protection.proof import Plan, Proof
from tests.protection.scene import scene
from tests.protection.windows import most_within
from tests.server import wait_for

FULL = Plan(5_000, 20.0, 3)
REDUCED = Plan(500, 4.0, 3)
_ENTER_RATE = 500.0


def run(plan: Plan) -> Proof:
    """Stop a server whose drain takes `plan.seconds`."""
    proof = Proof(f"drain: {plan.connections} clients, WS_DRAIN_SECONDS={plan.seconds:g}")
    settings = {
        "WS_MAX_CONNECTIONS": str(plan.connections),
        "WS_DRAIN_SECONDS": str(plan.seconds),
        "WS_CPU_REJECT_THRESHOLD": "100",
    }
    with scene(plan, settings) as play:
        crowd = play.crowd
        crowd.enter(range(plan.connections), _ENTER_RATE)
        assert play.wait_inside(plan.connections, plan.connections / _ENTER_RATE + 60), "the crowd is not in"
        crowd.returning = False
        play.server.signal(signal.SIGTERM)
        began = time.time()
        try:
            status: int | None = play.server.wait(plan.seconds + 30)
        except subprocess.TimeoutExpired:
            status = None
        seconds = time.time() - began
        wait_for(lambda: not crowd.open(), 10.0, "the end of all connections")
        guests = [guest for guest in crowd.guests() if guest.admitted]
        told = [guest for guest in guests if guest.goodbye_at]
        mean = plan.connections / plan.seconds
        times, gone = (3, 20.0) if plan.is_reduced else (2, 2.0)
        most = most_within([guest.goodbye_at for guest in told], 1.0)
        codes = {guest.close_code for guest in guests}
        hints = [guest.hint_seconds for guest in told if guest.hint_seconds is not None]
        proof.fact("goodbyes per second, mean", mean)
        proof.fact("first and last goodbye, s", _ends([guest.goodbye_at - began for guest in told]))
        proof.fact("hints from, to, s", _ends(hints))
        proof.check("all were told", len(told) == plan.connections, len(told))
        proof.check("with 1001", codes == {1001}, sorted(codes))
        proof.check("and when to come back", len(hints) == plan.connections, len(hints))
        proof.check(f"no 1 s has more than {times} times the mean", most <= times * mean, most)
        proof.check(
            f"gone at most {gone:g} s behind",
            seconds <= plan.seconds + gone,
            f"{seconds:.2f} s",
        )
        proof.check("exit status 0", status == 0, status)
        play.check_delivery(proof)
    return proof


def _ends(values: list[float]) -> str:
    return f"{min(values):.2f} · {max(values):.2f}" if values else "none"
