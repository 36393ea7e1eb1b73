"""Runs that nobody made: records with noise as a busy machine has it, and with differences put in on purpose.

The machine drifts by about 10 % from round to round, for all arms alike, and a little from one trial to the
next. A trial has a mood of its own, with heavy tails. Seconds hang together with the one before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from odinws.experiment.kinds import Assigned, End, Histogram, Machine, Record, Records, Run, Second, Trial
from odinws.experiment.plan import Plan, parse

# Level, and scatter of the trials (relative), of a server with some thousand clients.
LEVELS: dict[str, tuple[float, float]] = {
    "cpu_us_per_message": (6.0, 0.02),
    "delivery_p50_ms": (5.0, 0.06),
    "delivery_p95_ms": (12.0, 0.10),
    "delivery_p99_ms": (20.0, 0.15),
    "delivery_longest_ms": (60.0, 0.40),
    "ack_p50_ms": (3.0, 0.10),
    "ack_p99_ms": (25.0, 0.25),
    "connect_p50_ms": (4.0, 0.10),
    "connect_p99_ms": (30.0, 0.25),
    "hub_stall_max_ms": (25.0, 0.20),
    "lock_waits_per_s": (3.0, 0.40),
    "lock_wait_ms_per_s": (0.5, 0.40),
    "lock_longest_wait_ms": (1.0, 0.40),
    "lock_longest_hold_ms": (3.0, 0.30),
    "shard_balance": (1.2, 0.01),
    "used_shards": (10.0, 0.0),
    "memory_kb_per_connection": (12.0, 0.006),
    "gc_pause_max_ms": (8.0, 0.35),
    "refused": (0.0, 0.0),
    "lost": (0.0, 0.0),
    "duplicated": (0.0, 0.0),
    "disordered": (0.0, 0.0),
}
BY_SECOND = ("cpu_us_per_message", "hub_stall_max_ms", "memory_kb_per_connection")
BOUNDS = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]


def plan(arms: int = 2, rounds: int = 6, **changes: Any) -> Plan:
    """A plan with arms `a` (the baseline), `b`, `c` and so on."""
    tables = "".join(
        f'[[arm]]\nname = "{name}"\nsettings = {{ WS_WORKERS = {number} }}\n'
        f"baseline = {str(number == 1).lower()}\n"
        for number, name in enumerate("abcdefgh"[:arms], 1)
    )
    head = "".join(f"{key} = {value}\n" for key, value in changes.items())
    text = f'name = "made-up"\nquestion = "Which is it?"\nrounds = {rounds}\n{head}{tables}'
    return parse(text, "made-up.toml")


def run(
    plan: Plan, seed: int, factors: Mapping[str, Mapping[str, float]] | None = None, noise: float = 1.0
) -> list[Record]:
    """The records of a run.

    Args:
        factors: by arm and measure, what its level is multiplied with; added for counts that are 0.
        noise: multiplies every scatter.
    """
    rng = np.random.default_rng(seed)
    factors = factors or {}
    names = [arm.name for arm in plan.arms]
    orders = [names if number % 2 == 0 else names[::-1] for number in range(plan.rounds)]
    records: list[Record] = [
        Run(
            plan=plan,
            started="2026-01-02T03:04:05+00:00",
            seed=plan.seed,
            order=[(number, name) for number, order in enumerate(orders) for name in order],
            machine=Machine(cpu="made up", cores=8, kernel="6.1", memory=16 << 30),
            versions={"python": "3.12.1", "odinws": "0.1.0"},
            settings={arm.name: arm.environ for arm in plan.arms},
        )
    ]
    machine = 1.0
    for number, order in enumerate(orders):
        machine *= float(np.exp(0.10 * rng.standard_normal()))
        for place, name in enumerate(order):
            machine *= float(np.exp(0.01 * noise * rng.standard_normal()))
            records += _trial(rng, number, place, name, machine, factors.get(name, {}), noise)
    records.append(End(status="complete"))
    return records


def _trial(
    rng: np.random.Generator,
    number: int,
    place: int,
    name: str,
    machine: float,
    factors: Mapping[str, float],
    noise: float,
) -> list[Record]:
    values = {}
    for measure, (level, scatter) in LEVELS.items():
        if not level:
            values[measure] = factors.get(measure, 0.0)
            continue
        drifts = machine if measure.endswith(("_ms", "_per_message")) else 1.0
        mood = np.exp(noise * scatter * rng.standard_t(3))
        values[measure] = float(level * drifts * mood * factors.get(measure, 1.0))
    found: list[Record] = []
    wander = dict.fromkeys(BY_SECOND, 0.0)
    for second in range(-3, 15):
        for measure in BY_SECOND:
            wander[measure] = 0.7 * wander[measure] + 0.05 * noise * float(rng.standard_t(3))
        by_second = {measure: values[measure] * float(np.exp(wander[measure])) for measure in BY_SECOND}
        found.append(Second(round=number, order=place, arm=name, second=second, values=by_second))
    counts = rng.multinomial(1000, [0.1, 0.2, 0.3, 0.2, 0.1, 0.05, 0.03, 0.02]).tolist()
    found.append(
        Trial(
            round=number,
            order=place,
            arm=name,
            status="ok",
            values=values,
            histograms={"delivery": Histogram(BOUNDS, counts)},
            assigned=Assigned(connections=2000, messages_published=288, first_seq=1, last_seq=288),
        )
    )
    return found


def as_read(records: list[Record]) -> Records:
    """As `odinws.experiment.record.read` would give them."""
    (first,) = [record for record in records if isinstance(record, Run)]
    ends = [record for record in records if isinstance(record, End)]
    return Records(
        run=first,
        seconds=[record for record in records if isinstance(record, Second)],
        trials=[record for record in records if isinstance(record, Trial)],
        end=ends[-1] if ends else End(status="partial", why="the run was cut off"),
    )
