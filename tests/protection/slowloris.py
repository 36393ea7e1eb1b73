"""Requests that never become whole hold a server's sockets; others want in meanwhile."""

from __future__ import annotations

import math
import time

from tests.protection.background_load import background_load, read_result
from tests.protection.proof import Plan, Proof
from tests.protection.scene import Scene, scene
from tests.protection.windows import share
from tests.server import established
from tests.wire import Peer

FULL = Plan(10_000, 60.0, 5)
REDUCED = Plan(500, 4.0, 5)
SLOW_RATE = 100
"""Slow handshakes per second."""

INSIDE = 100
"""Clients that are in already."""

_PAUSE_SECONDS = 0.1
_PATIENCE_SECONDS = 20.0


def run(plan: Plan) -> Proof:
    """Attack with `plan.connections` half-sent requests, and let healthy clients connect one by one."""
    proof = Proof(f"slowloris: {plan.connections} half-sent requests, {SLOW_RATE} slow handshakes/s")
    with scene(plan, {"WS_MAX_CONNECTIONS": "10000"}) as play:
        play.crowd.enter(range(INSIDE), INSIDE)
        assert play.wait_inside(INSIDE, 30), "the crowd is not in"
        quiet, _ = _healthy(play, 1.0)
        port, seconds = play.server.port, plan.seconds
        with (
            background_load("half", port, plan.connections, plan.connections / 4, seconds) as half,
            background_load("slow", port, plan.connections, SLOW_RATE, seconds) as slow,
        ):
            under_way: list[int] = []
            took, failures = _healthy(play, seconds, under_way)
            halves, slows = read_result(half, 30.0), read_result(slow, 30.0)
        proof.fact(
            "half-sent requests at once, given up by the server", f"{halves['most']} · {halves['ended']}"
        )
        proof.fact("slow handshakes at once, given up by the server", f"{slows['most']} · {slows['ended']}")
        proof.fact("sockets of the server meanwhile, most", max(under_way))
        proof.fact("to get in before, p50, longest, ms", _figures(quiet, 0.5, 1.0))
        proof.fact("to get in meanwhile, p50, p99, longest, ms", _figures(took, 0.5, 0.99, 1.0))
        proof.check("the attack was under way", halves["most"] >= 0.9 * plan.connections, halves["most"])
        proof.check("every healthy client got in", not failures, failures[0] if failures else len(took))
        longest, most = max(took, default=math.inf), 8.0 if plan.is_reduced else 2.0
        proof.check(f"none waited for {most:g} s", longest < most, longest)
        proof.check(
            "who was in stayed in", len(play.crowd.guests()) == play.inside() == INSIDE, play.inside()
        )
        play.check_counts(proof, INSIDE, 15.0)
        play.check_delivery(proof)
    return proof


def _healthy(play: Scene, seconds: float, sockets: list[int] | None = None) -> tuple[list[float], list[str]]:
    """Connect, subscribe and leave, over and over. Returns how long each took, and what failed."""
    took: list[float] = []
    failures: list[str] = []
    until, looked = time.monotonic() + seconds, 0.0
    while (now := time.monotonic()) < until:
        try:
            with Peer(play.server.port) as peer:
                peer.sock.settimeout(_PATIENCE_SECONDS)
                peer.upgrade()
                peer.ask("subscribe", channels=["token.T0"])
                took.append(time.monotonic() - now)
        except (OSError, AssertionError) as error:
            failures.append(repr(error))
        if sockets is not None and now - looked > 1.0:
            looked = now
            sockets.append(established(play.server.port))
        time.sleep(_PAUSE_SECONDS)
    return took, failures


def _figures(times: list[float], *quantiles: float) -> str:
    return " · ".join(f"{1000 * share(times, quantile):.1f}" for quantile in quantiles)
