"""Runs whose answer is known before: twice the same, and servers with faults put in on purpose."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from odinws.experiment import run as running
from odinws.experiment.plan import Arm, Feed, Load, Plan
from odinws.experiment.record import read
from odinws.experiment.result import Result, Verdict
from odinws.experiment.verdict import judge

SABOTAGED = "tests/sabotage/gunicorn_conf.py"
BASELINE = "as-it-is"
LEAST_ROUNDS = 6
ROUNDS = 8  # six are the least; two more leave room for noise
_MEASURE_SECONDS = 5.0
_WARMUP_SECONDS = 1.0
_PROBES = 2.0  # few, so that messages are what the CPU time goes into


class Fault(NamedTuple):
    """One fault, and how it has to be found.

    Attributes:
        settings: that put it in.
        measure: that finds it.
        verdict: of that measure, and of the whole.
        connections: with which it shows.
        ramp: how fast they come, connections/s.
    """

    settings: dict[str, str]
    measure: str
    verdict: Verdict
    connections: int = 300
    ramp: float = 1000.0


FAULTS = {
    "pass": Fault({"SABOTAGE_PASS_MS": "2"}, "cpu_us_per_message", Verdict.WORSE),
    # Longer than a busy machine keeps a worker from its core while it holds a lock.
    "lock": Fault({"SABOTAGE_LOCK_MS": "100"}, "lock_longest_hold_ms", Verdict.WORSE),
    "drop": Fault({"SABOTAGE_DROP_EVERY": "1000"}, "lost", Verdict.FAILED),
    # Handshakes that run at one time leave room behind them: so they come slowly.
    "leak": Fault({"SABOTAGE_LEAK_BYTES": "1024"}, "memory_kb_per_connection", Verdict.WORSE, 2000, 100.0),
}


def sabotage_plan(name: str, rounds: int, seed: int) -> Plan:
    """A server as it is against one with a fault."""
    fault = FAULTS[name]
    load = Load(connections=fault.connections, ramp=fault.ramp, probes=_PROBES)
    return _plan(f"sabotage-{name}", fault.settings, load, rounds, seed)


def a_a_plan(rounds: int, seed: int) -> Plan:
    """Twice the same."""
    return _plan(f"a-a-{seed}", {}, Load(connections=300, ramp=1000.0, probes=_PROBES), rounds, seed)


def _plan(name: str, settings: dict[str, str], load: Load, rounds: int, seed: int) -> Plan:
    feed = Feed()
    common: dict[str, str | int | float | bool] = {"WS_SHARD_STRATEGY": "single-lock", "WS_WORKERS": "1"}
    return Plan(
        name=name,
        question="Is it found?",
        rounds=rounds,
        warmup_seconds=_WARMUP_SECONDS,
        measure_seconds=_MEASURE_SECONDS,
        seed=seed,
        feed=feed,
        load=load,
        arms=(
            Arm(BASELINE, common, SABOTAGED, True, feed, load),
            Arm("other", {**common, **settings}, SABOTAGED, False, feed, load),
        ),
    )


def run(plan: Plan, directory: Path) -> Result:
    """Run a plan and judge it.

    Raises:
        SystemExit: it did not come to its end, so it proves nothing.
    """
    end = running.run(plan, directory)
    if end.why:
        sys.exit(f"{plan.name} is partial: {end.why}")
    return judge(read(directory))


def found(name: str, result: Result) -> str:
    """What is wrong with the answer about a fault; "" if it was found as it has to be."""
    fault = FAULTS[name]
    row = next((row for row in result.measures if row.measure == fault.measure), None)
    if row is None:
        return f"nothing is said of {fault.measure}"
    if row.verdict is not fault.verdict:
        return f"{fault.measure} is {row.verdict}, not {fault.verdict}"
    if result.verdict is not fault.verdict:
        return f"the whole is {result.verdict}, not {fault.verdict}"
    return ""
