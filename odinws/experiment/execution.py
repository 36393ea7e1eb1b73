"""The verb `run`: from a file with a plan to a directory with records."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from odinws.experiment import plan, run
from odinws.experiment.plan import Plan, PlanError
from odinws.experiment.progress import Progress
from odinws.experiment.record import End


def load(file: Path, rounds: int | None, seconds: float | None, connections: int | None) -> Plan:
    """Read a plan, change what is given, and check all that can be checked before anything starts.

    Raises:
        PlanError: its text is one line.
        SwarmError: Locust is not installed.
    """
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise PlanError(os.fspath(file), "", "", f"can't be read: {why}") from None
    found = run.changed(plan.parse(text, os.fspath(file)), rounds, seconds, connections)
    run.check(found, os.fspath(file))
    return found


def execute(chosen: Plan, directory: Path) -> End:
    """Run a plan that `load` gave, and show how far it is.

    Raises:
        RecordError, OSError: the records can't be written.
        EmbeddedNatsError: NATS does not come up.
    """
    with Progress(chosen) as progress:
        return asyncio.run(run.run(chosen, directory, progress))
