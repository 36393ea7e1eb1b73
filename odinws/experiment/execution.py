"""The verb `run`: from a plan to a directory with records."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from odinws.experiment import run
from odinws.experiment.plan import Plan
from odinws.experiment.progress import Progress
from odinws.experiment.record import End


def prepare(
    plan: Plan, file: Path, rounds: int | None, seconds: float | None, connections: int | None
) -> Plan:
    """Change of a plan what is given, and check all that can be checked before anything starts.

    Args:
        file: how errors name the plan.
        seconds: of measuring.
        connections: to each arm.

    Raises:
        PlanError: its text is one line.
        SwarmError: Locust is not installed.
    """
    changed = run.changed(plan, rounds, seconds, connections)
    run.check(changed, os.fspath(file))
    return changed


def execute(plan: Plan, directory: Path) -> End:
    """Run a plan that is prepared, and show how far it is.

    Raises:
        RecordError, OSError: the records can't be written.
        EmbeddedNatsError: NATS does not come up.
    """
    with Progress(plan) as progress:
        return asyncio.run(run.run(plan, directory, progress))
