"""Every connection holds the worst that it may: `python -m tests.attack.worst --connections 10000`.

The server has its default settings, but for the memory that it may use (--memory). It must stay below that
while it serves the honest clients among them. Exit status: 0 if it did, 1 if not, 2 without namespaces.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from tests.attack.judging import Trial, p99
from tests.attack.network import HELP, NetworkError, network
from tests.attack.scene import scene
from tests.attack.stages import Stage
from tests.attack.trial import Times, trial
from tests.attack.vectors import WORST
from tests.server import ROOT

HONEST = 100  # of the connections: those who stay, and room for newcomers
_QUIET_SECONDS = 3.0
_RETRY_SECONDS = 10.0  # who was ended comes back, but not all at once: this is about memory
_PATIENCE_SECONDS = 10.0  # newcomers want history too, as all who attack do
_ATTACKERS_PATIENCE_SECONDS = 60.0  # who is slow to be served is not less of an attacker
_ENOUGH = 0.8  # of the attackers must have been in at least once
_BUDGET_BYTES = 1 << 40
_MIB = 1 << 20


def _enough(connections: int) -> int:
    return int(_ENOUGH * (connections - HONEST))


def faults(found: Trial, connections: int, limit_bytes: int) -> list[str]:
    """What does not hold, a line each."""
    wrong = []
    if found.outcome.upgraded < _enough(connections):
        wrong.append(f"nothing is proven: only {found.outcome.upgraded:,} attackers were in")
    if found.most >= limit_bytes:
        wrong.append(f"{found.most / _MIB:,.0f} MiB are not below the limit")
    if found.restarted:
        wrong.append("a worker ended")
    if not found.under.entries or not found.under.heartbeats:
        wrong.append("it served nobody")
    if len(found.under.refused) > len(found.under.entries) / 100:
        wrong.append(f"{len(found.under.refused)} of {len(found.under.entries)} honest clients were refused")
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Attack and tell; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.attack.worst", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--connections", type=int, default=10_000, help="of all clients (%(default)s)")
    parser.add_argument("--memory", type=int, default=1 << 30, help="bytes of WS_MEMORY_LIMIT (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="WS_WORKERS (%(default)s)")
    parser.add_argument("--seconds", type=float, default=150.0, help="of the attack (%(default)g)")
    parser.add_argument("--out", type=Path, default=ROOT / "build/attack", help="for figures (%(default)s)")
    options = parser.parse_args(arguments)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
    console = Console()
    stage = Stage(
        "worst",
        (
            ("WS_MAX_CONNECTIONS", str(options.connections)),
            ("WS_MEMORY_LIMIT", str(options.memory)),
            ("WS_CLIENT_MEMORY", str(options.memory // 4)),  # the default
            ("WS_WORKERS", str(options.workers)),
        ),
    )
    with contextlib.ExitStack() as stack:
        try:
            place = stack.enter_context(network())
        except NetworkError as error:
            console.print(HELP.format(why=error), style="bold red", highlight=False, markup=False)
            return 2
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        at = stack.enter_context(scene(place, stage, folder, _PATIENCE_SECONDS))
        found = trial(
            at,
            WORST,
            0,
            Times(_QUIET_SECONDS, options.seconds),
            folder / "attackers.log",
            attackers=max(1, (options.connections - HONEST) // WORST.lanes),
            budget=_BUDGET_BYTES,
            retry_seconds=_RETRY_SECONDS,
            patience_seconds=_ATTACKERS_PATIENCE_SECONDS,
            least=_enough(options.connections),
        )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "worst.json").write_bytes(msgspec.json.encode(found))
    console.print(_table(found, options.memory))
    wrong = faults(found, options.connections, options.memory)
    for fault in wrong:
        console.print(fault, style="red", highlight=False)
    return 1 if wrong else 0


def _table(found: Trial, limit_bytes: int) -> Table:
    outcome, quiet, under = found.outcome, found.quiet, found.under
    rows = (
        ("connections that were made, and held in the end", f"{outcome.upgraded:,}, {outcome.held:,}"),
        ("sent, MB", f"{outcome.sent / 1e6:,.0f}"),
        (
            "memory before, most, limit, MiB",
            _figures(found.before / _MIB, found.most / _MIB, limit_bytes / _MIB),
        ),
        (
            "heartbeats, p99 before and meanwhile, ms",
            _figures(1e3 * p99(quiet.heartbeats), 1e3 * p99(under.heartbeats)),
        ),
        (
            "deliveries, p99 before and meanwhile, ms",
            _figures(1e3 * p99(quiet.deliveries), 1e3 * p99(under.deliveries)),
        ),
        (
            "newcomers in, p99 of the time they took, ms",
            _figures(len(under.entries), 1e3 * p99(under.entries)),
        ),
        ("honest clients refused, and why", f"{len(under.refused)} {', '.join(sorted(set(under.refused)))}"),
        ("the server's reasons", ", ".join(f"{reason} {count:,}" for reason, count in found.ends.items())),
        ("as before after, s", "-" if found.recovered_seconds is None else f"{found.recovered_seconds:.1f}"),
    )
    result = Table("measured", "value", title=WORST.sends, title_justify="left")
    for row in rows:
        result.add_row(*row)
    return result


def _figures(*values: float) -> str:
    return " · ".join(f"{value:,.1f}" for value in values)


if __name__ == "__main__":
    sys.exit(main())
