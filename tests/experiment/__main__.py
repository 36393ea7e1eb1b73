"""Proofs that take minutes: `python -m tests.experiment sabotage` and `… a-a --seeds 10`.

Exit status: 0 if each fault was found by the right measure, or if at most one of the runs of twice the same
gave a difference; 1 if not.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from odinws.experiment.result import Verdict
from tests.experiment import proofs

_MISTAKES = 1  # of ten


@click.group()
def main() -> None:
    """Runs whose answer is known before."""


@main.command()
@click.argument("faults", nargs=-1, type=click.Choice(list(proofs.FAULTS)))
@click.option("--rounds", default=proofs.ROUNDS, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Keep the records here.")
def sabotage(faults: tuple[str, ...], rounds: int, seed: int, out: Path | None) -> None:
    """Is each fault found, and by the right measure? About 4 minutes for each."""
    bad = 0
    for name in faults or tuple(proofs.FAULTS):
        result = proofs.run(proofs.sabotage_plan(name, rounds, seed), _directory(out, f"sabotage-{name}"))
        wrong = proofs.found(name, result)
        bad += bool(wrong)
        click.echo(f"{name}: {wrong or 'found'}: {result.answer}")
    sys.exit(bool(bad))


@main.command(name="a-a")
@click.option("--seeds", default=10, show_default=True)
@click.option("--first", default=1, show_default=True, help="The first seed.")
@click.option("--rounds", default=proofs.LEAST_ROUNDS, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Keep the records here.")
def a_a(seeds: int, first: int, rounds: int, out: Path | None) -> None:
    """How often is a difference found where there is none? About 3 minutes for each seed."""
    mistakes = 0
    for seed in range(first, first + seeds):
        result = proofs.run(proofs.a_a_plan(rounds, seed), _directory(out, f"a-a-{seed}"))
        mistakes += result.verdict in (Verdict.BETTER, Verdict.WORSE)
        click.echo(f"seed {seed}: {result.answer}")
    click.echo(f"{mistakes} of {seeds} runs found a difference")
    sys.exit(mistakes > _MISTAKES)


def _directory(out: Path | None, name: str) -> Path:
    return Path(tempfile.mkdtemp(prefix="odinws-")) / name if out is None else out / name


if __name__ == "__main__":
    main()
