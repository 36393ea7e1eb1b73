"""From what was seen of an arm to the record of its trial. Computes only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from odinws import histogram
from odinws.experiment import load, scrape
from odinws.experiment.arms import Arm
from odinws.experiment.feed import Replay
from odinws.experiment.kinds import Assigned, Histogram, Trial
from odinws.experiment.kinds import Swarm as SwarmRecord
from odinws.experiment.load import Line, Swarm, SwarmError
from odinws.experiment.plan import Arm as ArmPlan
from odinws.experiment.plan import Plan
from odinws.experiment.scrape import Look

_PERCENTILES = {"delivery": (50, 95, 99), "ack": (50, 99), "connect": (50, 99)}
_COUNTS = {
    "server_delivered": "ws_messages_delivered_total",
    "server_undelivered": "ws_messages_undelivered_total",
    "server_shed": "ws_messages_shed_total",
    "server_accepted": "ws_connections_accepted_total",
    "server_refused": "ws_connections_refused_total",
    "server_would_refuse": "ws_connections_would_refuse_total",
}


@dataclass
class Part:
    """One arm of a block, and what is known of it so far."""

    plan: ArmPlan
    order: int
    arm: Arm
    swarm: Swarm
    problem: str = ""
    empty: Look | None = None
    looks: list[Look] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)


def latencies(swarm: Swarm, before: Line, after: Line) -> dict[str, float]:
    """Delivery and subscribe-to-ack between two lines of a swarm."""
    return _quantiles(
        swarm.bounds_ms, {name: load.difference(before, after, name) for name in ("delivery", "ack")}
    )


def trial(
    part: Part, number: int, plan: Plan, replay: Replay | None, warm_messages: int, interruption: str
) -> Trial:
    """The record of a trial of the round `number`.

    Args:
        replay: what it was given; None if that did not come to its end.
        warm_messages: of the replay, those that are cut away.
        interruption: why it was broken off from outside; "" if it was not.
    """
    problem, warm, swarm = part.problem, round(plan.warmup_seconds), SwarmRecord()
    values: dict[str, float] = {}
    histograms: dict[str, Histogram] = {}
    counts = {name: int(part.metrics[metric]) for name, metric in _COUNTS.items() if metric in part.metrics}
    if replay is not None:
        counts["feed_longest_late_ms"] = round(1000 * replay.longest_late_seconds)
    if part.empty is not None and len(part.looks) > warm + 1:
        values |= scrape.window_values(part.looks[warm:], part.empty)
    if len(part.lines) > warm:
        try:
            final = part.swarm.verdict()
        except SwarmError as error:
            problem = problem or str(error)
        else:
            seen, histograms = _seen(part.swarm, part.lines, warm, final)
            values |= seen
            counts |= {f"swarm_{name}": getattr(final, name) for name in load.Counts.__struct_fields__}
            cpu = max(line.swarm_cpu_percent for line in part.lines[warm:])
            swarm = SwarmRecord(cpu_percent=cpu, limited=final.limited, why=final.why)
    return Trial(
        round=number,
        order=part.order,
        arm=part.plan.name,
        status="interrupted" if interruption else "failed" if problem else "ok",
        problem=interruption or problem,
        values=values,
        histograms=histograms,
        counts=counts,
        errors=part.swarm.last.errors,
        swarm=swarm,
        assigned=_assigned(part, replay, warm_messages),
    )


def _seen(
    swarm: Swarm, lines: list[Line], warm: int, final: Line
) -> tuple[dict[str, float], dict[str, Histogram]]:
    """What the swarm measured: all deliveries, acks while messages flowed, connects from its start."""
    bounds, start = swarm.bounds_ms, lines[warm]
    parts = {
        "delivery": load.difference(start, final, "delivery"),
        "ack": load.difference(start, lines[-1], "ack"),
        "connect": load.difference(load.NOTHING, final, "connect"),
        "reconnect": load.difference(load.NOTHING, final, "reconnect"),
    }
    values = {name: float(getattr(final, name)) for name in ("lost", "duplicated", "disordered", "refused")}
    values |= _quantiles(bounds, parts)
    if (farthest := histogram.longest(bounds, parts["delivery"])) is not None:
        values["delivery_longest_ms"] = farthest
    return values, {name: Histogram(bounds, counts) for name, counts in parts.items() if any(counts)}


def _quantiles(bounds: list[float], parts: Mapping[str, list[int]]) -> dict[str, float]:
    found = {
        f"{name}_p{percent}_ms": histogram.quantile(bounds, counts, percent / 100, logarithmic=True)
        for name, counts in parts.items()
        for percent in _PERCENTILES.get(name, ())
    }
    return {measure: value for measure, value in found.items() if value is not None}


def _assigned(part: Part, replay: Replay | None, warm_messages: int) -> Assigned:
    connections = min((line.connected for line in part.lines), default=0)
    if replay is None or (first := replay.first_seq + warm_messages) > (last := replay.last_seq):
        return Assigned(connections=connections)
    return Assigned(
        connections=connections, messages_published=last - first + 1, first_seq=first, last_seq=last
    )
