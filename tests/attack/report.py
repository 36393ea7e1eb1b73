"""The table and the picture at the end of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from tests.attack.judging import LATE_SECONDS, Trial, faults
from tests.attack.stages import RISE_BYTES
from tests.attack.vectors import VECTORS
from tests.attack.vectors.base import Vector

LOOPBACK = (
    "WITHOUT NAMESPACES: every client is on the loopback, which is exempt from some bounds, and nothing of "
    "this says how the server meets strangers"
)
_MIB = 1 << 20
_BEFORE, _NOW, _BOUND = "#cbd5e1", "#0f766e", "#c2410c"
_REASONS = 3


def vectors(all_of_them: Iterable[Vector]) -> Table:
    """What there is."""
    result = Table("vector", "sends", "should be stopped by", "stage")
    for vector in all_of_them:
        result.add_row(vector.name, vector.sends, vector.bound, vector.stage.name)
    return result


def table(trials: Sequence[Trial], before: Sequence[Trial] = ()) -> Table:
    """One row for each vector; with another run, what that found too."""
    earlier = {trial.vector: trial for trial in before}
    result = Table(title="attackers of a megabyte each", title_justify="left")
    result.add_column("vector")
    for title in ("sent, kB", "memory, MiB", "p99, ms", "cores", "refused"):
        result.add_column(title, justify="right", no_wrap=True)
    result.add_column("well after, s", justify="right")
    result.add_column("the server's reasons")
    if before:
        result.add_column("before")
    result.add_column("")
    for trial in trials:
        found = faults(trial)
        row = [
            trial.vector,
            f"{trial.outcome.sent / 1000:,.0f}",
            f"{trial.before / _MIB:,.0f} {trial.rise_bytes / _MIB:+,.1f}",
            f"{1000 * trial.late_seconds:+,.1f}",
            f"{trial.busy:.2f}",
            f"{len(trial.under.refused)}",
            "-" if trial.recovered_seconds is None else f"{trial.recovered_seconds:.1f}",
            _reasons(trial),
        ]
        if before:
            row.append(_words(earlier[trial.vector]) if trial.vector in earlier else "")
        result.add_row(*row, f"[red]{'; '.join(found)}[/red]" if found else "[green]holds[/green]")
    return result


def markdown(trials: Sequence[Trial], before: Sequence[Trial]) -> str:
    """The same two runs as a table of Markdown."""
    earlier = {trial.vector: trial for trial in before}
    rows = ["| vector | sends | before | now |", "|---|---|---|---|"]
    for trial in trials:
        then = _words(earlier[trial.vector]) if trial.vector in earlier else ""
        rows.append(f"| `{trial.vector}` | {VECTORS[trial.vector].sends} | {then} | {_words(trial)} |")
    return "\n".join(rows) + "\n"


def _words(trial: Trial) -> str:
    figures = (
        f"{trial.rise_bytes / _MIB:+,.0f} MiB, {1000 * trial.late_seconds:+,.0f} ms, {trial.busy:.1f} cores"
    )
    return "; ".join(
        [figures, *(fault for fault in faults(trial) if not fault.startswith(("memory rose", "p99")))]
    )


def _reasons(trial: Trial) -> str:
    found = sorted(trial.ends.items(), key=lambda item: -item[1])
    return ", ".join(f"{reason} {count:,}" for reason, count in found[:_REASONS])


def picture(path: Path, trials: Sequence[Trial], before: Sequence[Trial] = ()) -> None:
    """Draw a PNG: how far memory and p99 rose with each vector, beside an earlier run."""
    drawing = Figure(figsize=(13, 2 + 0.3 * len(trials)), layout="constrained")
    drawing.suptitle("what attackers of a megabyte each do to honest clients", fontsize=10)
    memory, waiting = drawing.subplots(1, 2, sharey=True)
    earlier = {trial.vector: trial for trial in before}
    pairs = [(trial, earlier.get(trial.vector)) for trial in trials]
    _bars(memory, [_rises(now, then) for now, then in pairs], RISE_BYTES / _MIB)
    _bars(waiting, [_waits(now, then) for now, then in pairs], 1000 * LATE_SECONDS)
    memory.set_title("memory rose by, MiB", fontsize=9, loc="left")
    waiting.set_title("p99 of honest clients rose by, ms", fontsize=9, loc="left")
    memory.set_yticks(range(len(trials)), [trial.vector for trial in trials])
    memory.invert_yaxis()
    memory.legend(fontsize=7, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, dpi=110)


def _rises(*trials: Trial | None) -> list[float]:
    return [trial.rise_bytes / _MIB if trial else 0.0 for trial in trials]


def _waits(*trials: Trial | None) -> list[float]:
    return [1000 * trial.late_seconds if trial else 0.0 for trial in trials]


def _bars(axis: Axes, pairs: Sequence[Sequence[float]], bound: float) -> None:
    """Two bars for each vector: now, and within it before."""
    now, before = zip(*pairs, strict=True)
    if any(before):
        axis.barh(range(len(pairs)), before, 0.8, color=_BEFORE, label="before")
    axis.barh(range(len(pairs)), now, 0.4, color=_NOW, label="now")
    axis.axvline(bound, color=_BOUND, linewidth=1.0, linestyle="--", label="allowed")
    axis.set_xscale("symlog", linthresh=bound)
    axis.set_xlim(left=0)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
