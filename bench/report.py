"""The table and the picture at the end of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from bench.scenarios import BY_NAME
from bench.summary import IDLE, ON_REQUEST, USUAL, Column, Ratio, Row, Spread
from odinws.harness.statistics import CONFIDENCE


def _cell(value: Spread | None, digits: int) -> str:
    if value is None:
        return "-"
    middle = f"{value.median:,.{digits}f}"
    return middle if value.count == 1 else f"{middle}\n{value.lowest:,.{digits}f}-{value.highest:,.{digits}f}"


def ratio_text(ratio: Ratio | None) -> str:
    """The ratio, its interval and, when that is under what was asked for, its confidence."""
    if ratio is None:
        return "-"
    if ratio.pairs == 1:
        return f"{ratio.estimate:.2f}"
    confidence = "" if ratio.confidence >= CONFIDENCE else f" ({ratio.confidence:.0%})"
    return f"{ratio.estimate:.2f}\n{ratio.lower:.2f}-{ratio.upper:.2f}{confidence}"


def _is_idle(rows: Sequence[Row]) -> bool:
    return all(row.figures["cpu_us_per_message"] is None for row in rows)


def _table(
    title: str | None,
    wanted: Sequence[Column],
    rows: Sequence[Row],
    ratios: Mapping[str, Sequence[Ratio | None]],
) -> Table | None:
    """The ratios by their heads, then the columns that have something to show; None: nothing."""
    columns = [column for column in wanted if any(row.figures[column.figure] for row in rows)]
    if not columns and not ratios:
        return None
    result = Table(title=title, title_justify="left", show_lines=True)
    result.add_column("arm", no_wrap=True)
    for head in (*ratios, *(column.title for column in columns), "rounds"):
        result.add_column(head, justify="right", no_wrap=True)
    for row, *own in zip(rows, *ratios.values(), strict=True):
        figures = (_cell(row.figures[column.figure], column.digits) for column in columns)
        result.add_row(row.arm, *map(ratio_text, own), *figures, str(row.counted))
    return result


def tables(scenario: str, rows: Sequence[Row], reference: str) -> list[Table]:
    """The rows of one scenario, cheapest first; what it shows besides, each arm against its baselines."""
    columns = [IDLE, *USUAL] if _is_idle(rows) else USUAL
    costs = {row.arm: value.median for row in rows if (value := row.figures[columns[0].figure])}
    rows = sorted(rows, key=lambda row: costs.get(row.arm, math.inf))
    title = f"{scenario}: {BY_NAME[scenario].what}"
    main = _table(title, columns, rows, {f"x {reference}": [row.ratio for row in rows]})
    counted = [row for row in rows if row.counted]
    against: dict[str, list[Ratio | None]] = {}
    for row in counted:
        for each in row.against:
            against.setdefault(f"CPU/msg x {each.baseline}", []).append(each.cost)
            against.setdefault(f"p99 x {each.baseline}", []).append(each.p99)
    shown = [column for column in ON_REQUEST if column.figure in BY_NAME[scenario].shows]
    return [table for table in (main, _table(None, shown, counted, against)) if table is not None]


_LEGEND = (
    "Medians over the rounds, with lowest-highest. CPU is that of the server's processes, per message "
    "delivered to a client; a nats-server beside odinws and the feed are not in it. Ratios by round "
    "(Hodges-Lehmann), their interval exact (Wilcoxon); against a baseline, each arm against itself in the "
    "same round. ≤: the bound of a bucket of the server's own histogram. Slab is the whole machine's: both "
    "ends of each connection. Void rounds are left out."
)


def show(console: Console, summary: Sequence[Row], missing: Mapping[str, str], reference: str) -> None:
    """Print a table for each scenario, then the arms that could not be built."""
    for scenario in dict.fromkeys(row.scenario for row in summary):
        here = [row for row in summary if row.scenario == scenario]
        for table in tables(scenario, here, reference):
            console.print(table)
        for row in here:
            for note in row.notes:
                console.print(f"  {row.arm}: {note}", style="yellow", highlight=False)
    for arm, reason in missing.items():
        console.print(f"missing: {arm}: {reason}", style="yellow", highlight=False)
    console.print(_LEGEND, style="dim", highlight=False)


_PANELS = (
    ("cpu_us_per_message", "CPU µs per delivered message"),
    ("resident_kb_per_connection", "RSS KB per connection"),
    ("p99_ms", "delivery p99, ms"),
)
_IDLE_PANELS = (
    (IDLE.figure, "CPU µs per connection and second"),
    ("resident_kb_per_connection", "RSS KB per connection"),
    ("connections_per_second", "connections made per second"),
)
_OURS, _THEIRS = "#c2410c", "#475569"


def _panel(axis: Axes, rows: Sequence[Row], name: str) -> None:
    """One bar for each arm: the median, its range as a line, dearest at the bottom."""
    shown = [(row.arm, value) for row in rows if (value := row.figures[name]) is not None]
    shown.sort(key=lambda each: each[1].median, reverse=True)
    for place, (arm, value) in enumerate(shown):
        axis.barh(place, value.median, color=_OURS if arm.startswith("odinws") else _THEIRS, height=0.65)
        axis.plot([value.lowest, value.highest], [place, place], color="black", linewidth=1.2)
        axis.annotate(f" {value.median:,.2f}", (value.highest, place), va="center", fontsize=8)
    axis.set_yticks(range(len(shown)), [arm for arm, _ in shown], fontsize=8)
    axis.margins(x=0.15)
    axis.spines[["top", "right"]].set_visible(False)


def picture(path: Path, rows: Sequence[Row]) -> None:
    """Draw a PNG: for each scenario the CPU, memory and p99 of each arm."""
    scenarios = list(dict.fromkeys(row.scenario for row in rows))
    heights = [1.2 + 0.32 * sum(row.scenario == scenario for row in rows) for scenario in scenarios]
    drawing = Figure(figsize=(15, sum(heights)), layout="constrained")
    grid = drawing.subplots(
        len(scenarios), len(_PANELS), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for scenario, axes in zip(scenarios, grid, strict=True):
        here = [row for row in rows if row.scenario == scenario]
        for axis, (name, title) in zip(axes, _IDLE_PANELS if _is_idle(here) else _PANELS, strict=True):
            _panel(axis, here, name)
            axis.set_title(f"{scenario}: {title}", fontsize=9, loc="left")
    drawing.savefig(path, dpi=110)
