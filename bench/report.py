"""The table and the picture at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from bench.scenarios import DESCRIPTIONS
from bench.stats import CONFIDENCE, Ratio, Spread
from bench.summary import Row

_COLUMNS: tuple[tuple[str, str, int], ...] = (
    ("CPU µs/msg", "cpu_us_per_message", 2),
    ("user", "cpu_user_us_per_message", 2),
    ("system", "cpu_system_us_per_message", 2),
    ("cores", "server_cores", 2),
    ("msg/s", "delivered_per_second", 0),
    ("p50 ms", "p50_ms", 1),
    ("p95", "p95_ms", 1),
    ("p99", "p99_ms", 1),
    ("longest", "longest_ms", 1),
    ("RSS KB/conn", "resident_kb_per_connection", 1),
    ("slab KB/conn", "slab_kb_per_connection", 1),
    ("conn/s", "connections_per_second", 0),
)
_IDLE_COLUMN = ("CPU µs/conn/s", "cpu_us_per_connection_second", 2)
_CHURN_COLUMN = ("rejoin p99 ms", "subscribe_p99_ms", 1)
_SLOW_COLUMN = ("RSS growth MB", "resident_growth_mb", 0)


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


def _columns(rows: Sequence[Row]) -> list[tuple[str, str, int]]:
    """The columns that have something to show."""
    wanted = [_IDLE_COLUMN, *_COLUMNS] if _is_idle(rows) else [*_COLUMNS, _CHURN_COLUMN]
    if any(note.startswith("stalled") for row in rows for note in row.notes):
        wanted.append(_SLOW_COLUMN)
    return [column for column in wanted if any(row.figures[column[1]] for row in rows)]


def _is_idle(rows: Sequence[Row]) -> bool:
    return all(row.figures["cpu_us_per_message"] is None for row in rows)


def table(scenario: str, rows: Sequence[Row], reference: str) -> Table:
    """The rows of one scenario, cheapest first."""
    columns = _columns(rows)
    cost = "cpu_us_per_connection_second" if _is_idle(rows) else "cpu_us_per_message"

    def order(row: Row) -> float:
        value = row.figures[cost]
        return float("inf") if value is None else value.median

    result = Table(title=f"{scenario}: {DESCRIPTIONS[scenario]}", title_justify="left", show_lines=True)
    result.add_column("arm", no_wrap=True)
    result.add_column(f"x {reference}", justify="right", no_wrap=True)
    for title, _, _ in columns:
        result.add_column(title, justify="right", no_wrap=True)
    result.add_column("rounds", justify="right")
    for row in sorted(rows, key=order):
        cells = [_cell(row.figures[name], digits) for _, name, digits in columns]
        result.add_row(row.arm, ratio_text(row.ratio), *cells, str(row.counted))
    return result


_LEGEND = (
    "Medians over the rounds, with lowest-highest. CPU is that of the server's processes, per message "
    "delivered to a client; a nats-server beside odinws and the feed are not in it. Ratios by round "
    "(Hodges-Lehmann), their interval exact (Wilcoxon). Slab is the whole machine's: both ends of each "
    "connection. Void rounds are left out."
)


def show(console: Console, summary: Sequence[Row], missing: Mapping[str, str], reference: str) -> None:
    """Print a table for each scenario, then the arms that could not be built."""
    for scenario in dict.fromkeys(row.scenario for row in summary):
        here = [row for row in summary if row.scenario == scenario]
        console.print(table(scenario, here, reference))
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
    ("cpu_us_per_connection_second", "CPU µs per connection and second"),
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
