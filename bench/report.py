"""The table and the picture at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from bench.columns import IDLE, ON_REQUEST, USUAL, Column
from bench.ratios import Ratio, Spread
from bench.scenarios import BY_NAME
from bench.summary import Row
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


def _table(title: str | None, ratios: Sequence[str], columns: Sequence[Column]) -> Table:
    """A table whose rows are still to come."""
    result = Table(title=title, title_justify="left", show_lines=True)
    result.add_column("arm", no_wrap=True)
    for head in (*ratios, *(column.title for column in columns)):
        result.add_column(head, justify="right", no_wrap=True)
    return result


def _filled(wanted: Sequence[Column], rows: Sequence[Row]) -> list[Column]:
    """The columns that have something to show."""
    return [column for column in wanted if any(row.figures[column.figure] for row in rows)]


def _cells(row: Row, columns: Sequence[Column]) -> list[str]:
    return [_cell(row.figures[column.figure], column.digits) for column in columns]


def table(scenario: str, rows: Sequence[Row], reference: str) -> Table:
    """The rows of one scenario, cheapest first."""
    columns = _filled([IDLE, *USUAL] if _is_idle(rows) else USUAL, rows)
    cost = IDLE.figure if _is_idle(rows) else "cpu_us_per_message"

    def order(row: Row) -> float:
        value = row.figures[cost]
        return float("inf") if value is None else value.median

    result = _table(f"{scenario}: {BY_NAME[scenario].what}", [f"x {reference}"], columns)
    result.add_column("rounds", justify="right")
    for row in sorted(rows, key=order):
        result.add_row(row.arm, ratio_text(row.ratio), *_cells(row, columns), str(row.counted))
    return result


def details_table(scenario: str, rows: Sequence[Row]) -> Table | None:
    """What the scenario shows besides, and each arm against itself under the baselines; None: nothing."""
    columns = _filled([each for each in ON_REQUEST if each.figure in BY_NAME[scenario].shows], rows)
    ratios = [f"{what} x {each.baseline}" for each in rows[0].against for what in ("CPU/msg", "p99")]
    if not columns and not ratios:
        return None
    result = _table(None, ratios, columns)
    for row in rows:
        if row.counted:
            against = [ratio_text(ratio) for each in row.against for ratio in (each.cost, each.p99)]
            result.add_row(row.arm, *against, *_cells(row, columns))
    return result


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
        console.print(table(scenario, here, reference))
        if (details := details_table(scenario, here)) is not None:
            console.print(details)
        for row in here:
            for note in row.notes:
                console.print(f"  {row.arm}: {note}", style="yellow", highlight=False)
    for arm, reason in missing.items():
        console.print(f"missing: {arm}: {reason}", style="yellow", highlight=False)
    console.print(_LEGEND, style="dim", highlight=False)


_PANELS: tuple[tuple[str, str], ...] = (
    ("cpu_us_per_message", "CPU µs per delivered message"),
    ("resident_kb_per_connection", "RSS KB per connection"),
    ("p99_ms", "delivery p99, ms"),
)
_IDLE_PANELS: tuple[tuple[str, str], ...] = (
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
