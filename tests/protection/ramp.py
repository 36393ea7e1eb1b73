"""Thousands come in while the CPU is taken.

The server that this one replaces then refused everybody, or nobody, for 15 s at a time: see
docs/investigation.md.
"""

from __future__ import annotations

import contextlib
import os
import time

from tests.protection.background_load import background_load
from tests.protection.proof import Plan, Proof
from tests.protection.scene import Scene, scene
from tests.protection.windows import longest_refusal, share

FULL = Plan(7_000, 60.0, 1)
REDUCED = Plan(700, 4.0, 1)
RATE = 100.0
"""Clients per second."""

TIGHT = {"WS_CPU_LIMIT": "0.6"}
"""So few cores that the burden takes the server above its threshold; enough for what refused clients cost."""

GENTLE = {
    "WS_CPU_LIMIT": "1.5",
    "WS_CPU_REJECT_THRESHOLD": "5",
    "WS_HUB_LAG_THRESHOLD_MS": "2000",
    "WS_ADMISSION_START_RATE": "60",
}
"""Admission falls soon and not far: a small proof has no time for a `Retry-After` of 30 s."""

ASKING = 3
"""Processes that ask for /metrics without a pause, beside a busy one per core."""

_SHORT_SECONDS = 10.0
MOST_SECONDS_OF_REFUSALS = 2.0
_AFTER_SECONDS = 90.0  # three times the longest Retry-After


def run(plan: Plan) -> Proof:
    """Let all come in at `RATE`, for `plan.seconds` of it with the burden, and for the rest without."""
    proof = Proof(f"ramp: {plan.connections} clients at {RATE:g}/s, CPU taken for {plan.seconds:g} s")
    settings = GENTLE if plan.seconds < _SHORT_SECONDS else TIGHT
    with scene(plan, {"WS_MAX_CONNECTIONS": str(plan.connections + 1), **settings}) as play:
        began = time.time()
        with contextlib.ExitStack() as loads:
            for _ in range(os.cpu_count() or 1):
                loads.enter_context(background_load("busy", plan.seconds))
            for _ in range(ASKING):
                loads.enter_context(background_load("asking", play.server.admin_port, plan.seconds))
            play.crowd.enter(range(plan.connections), RATE)
            time.sleep(plan.seconds)
        freed = time.time()
        play.wait_inside(plan.connections, plan.connections / RATE + _AFTER_SECONDS)
        _judge(proof, play, plan, began, freed)
    return proof


def _judge(proof: Proof, play: Scene, plan: Plan, began: float, freed: float) -> None:
    crowd = play.crowd
    admissions, refusals = crowd.admissions(), crowd.refusals()
    first_asked: dict[int, float] = {}
    waits = []
    for guest in crowd.guests():
        asked_at = first_asked.setdefault(guest.index, guest.asked_at)
        if guest.admitted:
            waits.append(guest.answered_at - asked_at)
    during = sum(at < freed for at in admissions)
    proof.fact("admitted while the CPU was taken, per second", during / (freed - began))
    proof.fact("refused while the CPU was taken", sum(at < freed for at in refusals))
    proof.fact("refused in all, by reason", play.refused())
    proof.fact("until all were in, seconds behind the burden", max(admissions, default=0.0) - freed)
    proof.fact("a client's wait, p50, p99, longest, s", _figures(waits))
    inside = play.inside()
    longest = longest_refusal(admissions, refusals)
    proof.check("the guard had to refuse", set(play.refused()) & {"cpu", "hub_lag"} != set(), len(refusals))
    proof.check(
        f"no {MOST_SECONDS_OF_REFUSALS:g} s of nothing but refusals",
        longest < MOST_SECONDS_OF_REFUSALS,
        longest,
    )
    proof.check("all got in", inside == plan.connections, inside)
    proof.check("nobody who was in was put out", len(admissions) == inside, len(admissions) - inside)
    proof.check("nobody was left without an answer", crowd.unanswered() == 0, crowd.unanswered())
    play.check_counts(proof, plan.connections)
    play.check_delivery(proof)


def _figures(waits: list[float]) -> str:
    return " · ".join(f"{share(waits, quantile):.2f}" for quantile in (0.5, 0.99, 1.0))
