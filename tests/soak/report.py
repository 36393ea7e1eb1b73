"""The table and the picture at the end of a run."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from tests.soak.judging import QUANTITIES, SIGMAS, WARM_UP, Quantity, Trend, fit, judged
from tests.soak.samples import Sample

_COLOURS = ("#c2410c", "#475569", "#0f766e", "#7e22ce")
_MIB = 1 << 20


def _amount(what: str, value: float, sign: str = "") -> str:
    if what == "memory":
        return f"{value / _MIB:{sign},.2f} MiB"
    return f"{value:{sign},.2f}"


def table(trends: Sequence[Trend]) -> Table:
    """One row for each thing of each worker."""
    result = Table(title="after the warm-up", title_justify="left")
    result.add_column("worker", justify="right")
    result.add_column("what")
    for title in ("level", "per hour", "± error", "growth", f"- {SIGMAS:g} errors", "allowed"):
        result.add_column(title, justify="right", no_wrap=True)
    result.add_column("")
    for trend in trends:
        result.add_row(
            str(trend.slot),
            trend.what,
            _amount(trend.what, trend.level),
            _amount(trend.what, trend.per_hour, "+"),
            _amount(trend.what, trend.error_per_hour),
            _amount(trend.what, trend.growth, "+"),
            _amount(trend.what, trend.least, "+"),
            _amount(trend.what, trend.bound),
            "[red]leaks[/red]" if trend.leaks else "[green]steady[/green]",
        )
    return result


def per_second(samples: Sequence[Sample]) -> list[float]:
    """Messages delivered per second, from each sample to the next."""
    return [
        (after.delivered - before.delivered) / (after.seconds - before.seconds)
        for before, after in itertools.pairwise(samples)
    ]


def picture(path: Path, title: str, samples: Sequence[Sample]) -> None:
    """Draw a PNG: what each worker used, with the line that was fitted, and what was counted."""
    drawing = Figure(figsize=(14, 9), layout="constrained")
    drawing.suptitle(title, fontsize=10)
    axes = list(drawing.subplots(3, 2).flat)
    for axis, quantity in zip(axes, QUANTITIES, strict=False):
        _quantity(axis, quantity, samples)
    _counts(axes[4], samples)
    _rate(axes[5], samples)
    for axis in axes:
        axis.set_xlabel("minutes", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.axvspan(0, _minutes(samples[-1:])[0] * WARM_UP, color="#f1f5f9", zorder=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, dpi=110)


def _minutes(samples: Sequence[Sample]) -> list[float]:
    return [sample.seconds / 60 for sample in samples]


def _quantity(axis: Axes, quantity: Quantity, samples: Sequence[Sample]) -> None:
    unit = _MIB if quantity.what == "memory" else 1
    suffix = {"memory": ", MiB", "descriptors": " besides those of connections"}.get(quantity.what, "")
    axis.set_title(f"{quantity.what}{suffix}", fontsize=9, loc="left")
    late = judged(samples)
    for place, worker in enumerate(samples[0].workers):
        colour = _COLOURS[place % len(_COLOURS)]
        values = [quantity.of(sample.workers[place]) / unit for sample in samples]
        axis.plot(_minutes(samples), values, color=colour, linewidth=1.2, label=f"worker {worker.slot}")
        if len(late) > 2:
            line = fit(_minutes(late), values[-len(late) :])
            ends = (late[0].seconds / 60, late[-1].seconds / 60)
            axis.plot(ends, [line.intercept + line.slope * at for at in ends], color=colour, linestyle="--")
    axis.legend(fontsize=7, frameon=False)


def _counts(axis: Axes, samples: Sequence[Sample]) -> None:
    axis.set_title("connections, by everybody who counts; and what must stay at 0", fontsize=9, loc="left")
    series = (
        ("clients", [sample.open for sample in samples]),
        ("board", [sample.shared for sample in samples]),
        ("strategies", [sample.members for sample in samples]),
        ("kernel", [sample.established for sample in samples]),
        ("refused", [sample.refused for sample in samples]),
        ("differences", [sample.differences for sample in samples]),
    )
    for name, values in series:
        axis.plot(_minutes(samples), values, linewidth=1.2, label=name)
    axis.legend(fontsize=7, frameon=False, ncols=3)


def _rate(axis: Axes, samples: Sequence[Sample]) -> None:
    axis.set_title("messages delivered per second", fontsize=9, loc="left")
    axis.plot(_minutes(samples[1:]), per_second(samples), color=_COLOURS[0], linewidth=1.2)
    axis.set_ylim(bottom=0)
