"""Fuzz what reads from outside: `python -m tests.fuzz --seconds 60 --seed 1 --target frames`.

Exit status: 0 if everything held; 1 if an input failed: it is in the corpus then, and the tests replay it.
"""

from __future__ import annotations

import argparse
import random
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tests.fuzz.campaign import Finding, campaign
from tests.fuzz.corpus import CORPUS
from tests.fuzz.targets import TARGETS
from tests.fuzz.targets.base import Target


def fuzz(
    targets: Sequence[Target], seconds: float, seed: int, console: Console, corpus: Path
) -> list[Finding]:
    """Give each target its share of the time; what was found."""
    found = []
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        TextColumn("{task.fields[tries]:>9,} tries, {task.fields[labels]:>4} kinds"),
        TimeRemainingColumn(),
    )
    share = seconds / len(targets)
    with Progress(*columns, console=console) as progress:
        for target in targets:
            task = progress.add_task(target.name, total=share, tries=0, labels=0)

            def tell(tries: int, labels: int, task: int = task) -> None:
                elapsed = progress.tasks[task].elapsed or 0.0
                progress.update(progress.task_ids[task], completed=elapsed, tries=tries, labels=labels)

            outcome = campaign(target, seed, share, tell, corpus)
            if outcome.finding is not None:
                found.append(outcome.finding)
    return found


def main(arguments: Sequence[str] | None = None, corpus: Path = CORPUS) -> int:
    """Fuzz and tell; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="over all targets (%(default)g)")
    parser.add_argument("--seed", type=int, help="drawn and printed if not given")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="may be repeated; all")
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    console = Console()
    console.print(f"seed {seed}", highlight=False)
    targets = [TARGETS[name] for name in options.target or TARGETS]
    found = fuzz(targets, options.seconds, seed, console, corpus)
    for finding in found:
        console.print(f"{finding.target}: {finding.data!r}", style="red", highlight=False, markup=False)
        console.print("".join(traceback.format_exception(finding.error)), highlight=False, markup=False)
        console.print(f"kept as {finding.path}", highlight=False, markup=False)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
