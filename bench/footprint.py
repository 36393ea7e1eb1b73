"""What one connection at rest holds, object by object, beside what is measured.

An object counts if only this connection leads to it, not another one of the same instant: names of channels,
the time of a tick and frames that were made for all count for none. A container for all counts by its growth
over the number of connections; it grows in steps, so that depends on the number.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from bench.build import call
from bench.resting import ALL_SLAB, BUSY


def measured(connections: int) -> dict[str, Any]:
    """Look at so many connections in a fresh process. Raises MissingError when it fails."""
    found: dict[str, Any] = json.loads(call([sys.executable, "-m", "bench.resting", str(connections)]))
    return found


def _table(title: str, sizes: Mapping[str, float], *totals: tuple[str, float]) -> Table:
    table = Table("what", title=title, title_justify="left", min_width=72)
    table.add_column("bytes", justify="right")
    for name, size in sizes.items():
        table.add_row(name, f"{size:,.0f}")
    table.add_section()
    for name, size in totals:
        table.add_row(name, f"{size:,.0f}", style="bold")
    return table


@click.command()
@click.option("--connections", default=2000, show_default=True, type=click.IntRange(BUSY))
def footprint(connections: int) -> None:
    """Say what one connection at rest holds, and what it holds more when it is not."""
    found = measured(connections)
    counted = sum(found["objects"].values()) + sum(found["containers"].values())
    kernel = found["kernel"]
    named = sum(size for name, size in kernel.items() if name != ALL_SLAB)
    one_socket = (
        ("one end: half of those named", named / 2) if named else ("one end: half", kernel[ALL_SLAB] / 2)
    )
    tables = [
        _table(
            f"One connection at rest with 5 subscriptions, of {connections:,}",
            found["objects"] | found["containers"],
            ("sum", counted),
            ("measured: growth of RSS per connection", found["resident"]),
            ("not named above", found["resident"] - counted),
        ),
        _table("The kernel's slab, of the whole machine, per connection: both its ends", kernel, one_socket),
        *(_table(f"More while {state}", sizes) for state, sizes in found["states"].items()),
    ]
    console = Console()
    console.print(*tables, sep="\n")
    for line in (
        f"The read watcher holds libev's struct: {found['watcher_struct']} of its bytes.",
        "Not named: libev's table (16 bytes for each descriptor, of both ends) and holes between blocks.",
        "Counted, but perhaps not resident: the unused ends of tables.",
        f"A full socket holds up to {found['send_buffer']:,} bytes more in the kernel, beside the slab.",
    ):
        console.print(line, highlight=False, soft_wrap=True)
