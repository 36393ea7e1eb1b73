"""Soak a server: `python -m tests.soak --minutes 20 --clients 500 --seed 1 --out soak.png`.

Exit status: 0 if nothing was lost, all counts agreed and nothing grew; 1 if not, and it is said what.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tests.soak import judging, report
from tests.soak.run import Plan, Result, run
from tests.soak.samples import Sample

ROOT = Path(__file__).parents[2]
_WIDTH = 130  # tables are wide; a pipe has no width of its own


def soak(plan: Plan, console: Console) -> Result:
    """Run it with a bar; what came of it."""
    columns = (
        TextColumn("soak"),
        BarColumn(),
        TextColumn("{task.fields[connections]:,} connections, {task.fields[joined]:,} so far"),
        TextColumn("{task.fields[memory]:.0f} MiB"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress, tempfile.TemporaryDirectory() as directory:
        task = progress.add_task("", total=plan.seconds, connections=0, joined=0, memory=0.0)

        def tell(sample: Sample) -> None:
            memory = sum(worker.rss_bytes for worker in sample.workers) / (1 << 20)
            progress.update(
                task,
                completed=sample.seconds,
                connections=sample.shared,
                joined=sample.joined,
                memory=memory,
            )

        return run(plan, Path(directory), tell)


def main() -> int:
    """Soak and tell; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="%(default)g")
    parser.add_argument("--clients", type=int, default=500, help="%(default)s")
    parser.add_argument("--seed", type=int, help="drawn and printed if not given")
    parser.add_argument("--rate", type=float, default=50.0, help="messages per second (%(default)g)")
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / ".cache/soak/soak.png",
        help="the picture; the samples are put beside it as .json (%(default)s)",
    )
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    plan = Plan(options.minutes * 60, options.clients, seed, options.rate)
    console = Console()
    console.width = max(console.width, _WIDTH)
    console.print(f"seed {seed}", highlight=False)
    result = soak(plan, console)
    samples = result.samples
    clients = f"{plan.clients} clients, {samples[-1].joined:,} connections"
    title = f"{options.minutes:g} minutes, {clients}, seed {seed}"
    report.picture(options.out, title, samples)
    options.out.with_suffix(".json").write_bytes(msgspec.json.encode(samples))
    trends = judging.trends(samples)
    if trends:
        console.print(report.table(trends))
    else:
        console.print("too short to judge what it uses", style="yellow", highlight=False)
    rates = report.per_second(samples) or [0.0]
    console.print(
        f"{title}: {result.published:,} messages published, {result.got:,} read by clients, "
        f"{sum(rates) / len(rates):,.0f} delivered per second; picture: {options.out}",
        highlight=False,
    )
    faults = result.faults + [f"worker {t.slot}: {t.what} grows" for t in trends if t.leaks]
    for fault in faults:
        console.print(fault, style="red", highlight=False, markup=False)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
