"""Ten times as many clients come as can be served, and each leaves when it has waited for two seconds."""

from __future__ import annotations

from tests.protection.background_load import background_load, read_result
from tests.protection.proof import Plan, Proof
from tests.protection.scene import Scene, scene

FULL = Plan(2_000, 10.0, 1)
REDUCED = Plan(200, 2.0, 1)
TIMES = 10
PATIENCE_SECONDS = 2.0

_MOST_RATE = 8_000.0  # clients per second; beyond that accepting alone takes a core
_MOST_WAVES = 5
_CLOSED = 16  # clients that come one after the other, to see what the server does at its best
_JUDGED_SECONDS = 5.0  # a shorter run is mostly its first half-second, in which nobody is refused
_LEAST_GOODPUT = 0.8
_LONGEST_SECONDS = 0.1


def run(plan: Plan) -> Proof:
    """See what one worker does at its best, then come at ten times that rate, at most 8,000/s; some stay."""
    proof = Proof(f"overload: {TIMES} times as many as can be served, for {plan.seconds:g} s")
    settings = {"WS_WORKERS": "1", "LOG_LEVEL": "warning", "WS_MAX_CONNECTIONS": "50000"}
    # The CPU is at its end by design: here the queue has to protect it, not the guard.
    with scene(plan, {**settings, "WS_CPU_REJECT_THRESHOLD": "100"}) as play:
        play.crowd.enter(range(plan.connections), 200.0)
        assert play.wait_inside(plan.connections, 60.0), "the crowd is not in"
        best = _load(play, plan.seconds, "closed", _CLOSED)["admitted_per_second"]
        for _ in range(_MOST_WAVES):
            found = _load(play, plan.seconds, "arriving", min(TIMES * best, _MOST_RATE))
            if found["refused"]:  # else other processes have kept them from coming that fast
                break
        goodput = found["admitted_per_second"] / best
        proof.fact("served at its best, per second", best)
        proof.fact("came per second, times that", found["came_per_second"] / best)
        proof.fact("served meanwhile, share of its best", goodput)
        quantiles = [1000 * found[f"refused_p{quantile}"] for quantile in (50, 95, 99, 100)]
        proof.fact("a refusal took, p50, p95, p99, longest, ms", _figures(quantiles))
        proof.fact(
            "to get in, p50, p99, longest, ms",
            _figures([1000 * found[f"admitted_p{q}"] for q in (50, 99, 100)]),
        )
        proof.check("some were refused", found["refused"] > 0, int(found["refused"]))
        proof.check("nobody was left without an answer", found["gave_up"] == 0, int(found["gave_up"]))
        proof.check("nobody was cut off", found["failed"] == 0, int(found["failed"]))
        if plan.seconds >= _JUDGED_SECONDS:
            proof.check(f"at least {_LEAST_GOODPUT:.0%} of its best", goodput >= _LEAST_GOODPUT, goodput)
            median = found["refused_p50"]
            proof.check(f"half hear it within {_LONGEST_SECONDS:g} s", median <= _LONGEST_SECONDS, median)
        play.check_counts(proof, plan.connections, 30.0)
        play.check_delivery(proof)
    return proof


def _load(play: Scene, seconds: float, kind: str, number: float) -> dict[str, float]:
    with background_load(kind, play.server.port, number, PATIENCE_SECONDS, seconds) as load:
        return read_result(load, seconds + 60.0)


def _figures(values: list[float]) -> str:
    return " · ".join(f"{value:.1f}" for value in values)
