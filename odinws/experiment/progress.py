"""How far a run is: a bar on a terminal, else one line for each trial. Both go to standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from odinws.experiment.kinds import Trial
from odinws.experiment.plan import Plan

_SHOWN = {
    "cpu_us_per_message": "{:.2f} µs/message",
    "delivery_p99_ms": "p99 {:.1f} ms",
    "ack_p99_ms": "ack p99 {:.1f} ms",
    "hub_stall_max_ms": "longest stall {:.1f} ms",
    "lost": "{:.0f} lost",
}


class Progress(Bar):
    """Of one plan. Use it as a context manager."""

    def __init__(self, plan: Plan, output: TextIO = sys.stderr) -> None:
        console = Console(file=output, highlight=False, soft_wrap=True)
        text, count = TextColumn("{task.description}"), TextColumn("{task.completed}/{task.total}")
        columns = (text, BarColumn(), count, TimeElapsedColumn(), TimeRemainingColumn())
        super().__init__(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._plan = plan
        self._began = time.monotonic()
        self._task = self.add_task(plan.name, total=plan.rounds * len(plan.arms))

    def begin(self, number: int, arms: Sequence[str]) -> Callable[[str], None]:
        """A block of the round `number`, from 0, begins; the result shows, on a terminal, what goes on."""
        title = f"round {number + 1} of {self._plan.rounds}: {', '.join(arms)}"
        return lambda text: self.update(self._task, description=f"{title}: {text}")

    def finish(self, trial: Trial) -> None:
        """A trial has ended."""
        self.advance(self._task)
        figures = [form.format(trial.values[name]) for name, form in _SHOWN.items() if name in trial.values]
        said = ", ".join(figures) if trial.status == "ok" else f"{trial.status}: {trial.problem}"
        at = f"{time.monotonic() - self._began:5.0f} s  round {trial.round + 1} of {self._plan.rounds}"
        style = None if trial.status == "ok" else "red"
        self.console.print(f"{at}  {trial.arm}: {said}", style=style, markup=False)
