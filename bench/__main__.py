"""`python -m bench`: run, smoke, show, list, footprint."""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from bench import build as builds
from bench import report
from bench.arms import ARMS, REFERENCE, choose
from bench.arms.base import Arm
from bench.arms.odinws import BEFORE, before
from bench.build import BENCH, MissingError, revision
from bench.client import driver
from bench.footprint import footprint
from bench.plan import plan
from bench.scenarios import SCENARIOS, SMOKE
from bench.summary import faults, rows
from bench.trial import Trial
from odinws.harness.machine import machine

console = Console()
# Tables are wide; a pipe has no width of its own.
WIDE = 230


@click.group()
def main() -> None:
    """What fan-out costs: odinws beside a bare send loop and its peers."""


def describe() -> dict[str, Any]:
    """What the figures are taken on: machine, limits, load at this moment, the revision of odinws."""
    return {
        **machine(),
        "python": platform.python_version(),
        "open_files_limit": driver.open_files_limit(),
        "load_average": os.getloadavg(),
        "revision": revision(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def build(
    arms: list[Arm], *, with_packages: bool = False
) -> tuple[list[Arm], dict[str, dict[str, str]], dict[str, str]]:
    """Build the arms, perhaps with their packages of Debian.

    Returns those that are there, the versions, and the reason for each that is missing.
    """
    versions: dict[str, dict[str, str]] = {}
    missing: dict[str, str] = {}
    for arm in arms:
        try:
            driver.build()  # none can be measured without
            if with_packages and arm.debian:
                builds.install(arm.debian)
            versions[arm.name] = arm.build()
        except MissingError as error:
            missing[arm.name] = str(error)
            console.print(f"missing: {arm.name}: {error}", style="yellow", highlight=False)
    return [arm for arm in arms if arm.name in versions], versions, missing


@main.command()
@click.argument("scenarios", nargs=-1, type=click.Choice(list(SCENARIOS)))
@click.option(
    "--arms",
    help="Comma-separated names, or kinds (odinws stands for all its strategies). "
    f"Default: all; with --before odinws:sync-dict,{BEFORE}.",
)
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0, 2**32 - 1))
@click.option(
    "--before",
    "checkout",
    envvar="BENCH_BEFORE",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help=f"Another checkout of odinws: its server is the arm {BEFORE}.",
)
@click.option(
    "--reference",
    help=f"The arm that the others are set against. Default: {REFERENCE}; with --before {BEFORE}.",
)
@click.option(
    "--connections", type=click.IntRange(1), help="So many in every scenario, instead of its own number."
)
@click.option("--install", is_flag=True, help="apt-get the packages of Debian that arms need; needs root.")
@click.option("--out", type=click.Path(path_type=Path), help="Where results go; .json and .png are appended.")
def run(
    scenarios: tuple[str, ...],
    arms: str | None,
    rounds: int,
    seed: int,
    checkout: Path | None,
    reference: str | None,
    connections: int | None,
    install: bool,
    out: Path | None,
) -> None:
    """Measure arms under SCENARIOS (all when none is named), in interleaved rounds."""
    todo = [scenario for name in scenarios or SCENARIOS for scenario in SCENARIOS[name]]
    if connections is not None:
        todo = [scenario.sized(connections) for scenario in todo]
    known = ARMS
    defaults = "all", REFERENCE
    if checkout is not None:
        known, defaults = {**ARMS, BEFORE: before(checkout)}, (f"odinws:sync-dict,{BEFORE}", BEFORE)
    wanted, reference = choose(arms or defaults[0], known), reference or defaults[1]
    if reference not in known:
        raise click.BadParameter(f"{reference} names no arm; there are {', '.join(known)}")
    present, versions, missing = build(wanted, with_packages=install)
    base = out.with_suffix("") if out else BENCH / "results" / f"{datetime.now(UTC):%Y-%m-%d-%H%M%S}"
    base.parent.mkdir(parents=True, exist_ok=True)
    steps = plan(todo, present, rounds, seed)
    record: dict[str, Any] = {
        "machine": describe(),
        "seed": seed,
        "rounds": rounds,
        "connections": connections,
        "reference": reference,
        "versions": versions,
        "missing": missing,
        "order": [[step.scenario.name, step.round, step.arm.name] for step in steps],
        "results": [],
    }
    limit = driver.open_files_limit()
    console.print(f"{len(steps)} trials; open files end at {limit:,} per process; results: {base}.json")
    for number, step in enumerate(steps, 1):
        head = f"{number}/{len(steps)} {step.scenario.name} round {step.round} {step.arm.name}"
        console.print(head, style="bold", highlight=False)
        began = time.monotonic()
        result = Trial(step.arm, step.scenario, seed, _say).run()
        record["results"].append({**result, "round": step.round, "trial_seconds": time.monotonic() - began})
        _say(_outcome(result))
        base.with_suffix(".json").write_text(json.dumps(record, indent=1))
    record["summary"] = [asdict(row) for row in rows(record["results"], reference)]
    base.with_suffix(".json").write_text(json.dumps(record, indent=1))
    _show(record, base)


def _say(line: str) -> None:
    console.print(f"    {line}", highlight=False)


def _outcome(result: dict[str, Any]) -> str:
    if result["status"] != "ok":
        return f"{result['status']}: {'; '.join(result['reasons'])}"
    cost = result["cpu_us_per_message"]
    figures = [
        f"{result['cpu_us_per_connection_second']:.1f} µs/connection/s"
        if cost is None
        else f"{cost:.2f} µs/message",
        f"{result['resident_kb_per_connection']:.1f} KB/connection",
        *(f"{count} {kind}" for kind, count in faults(result).items()),
    ]
    return ", ".join(figures)


def _show(record: dict[str, Any], base: Path) -> None:
    reference = record.get("reference", REFERENCE)
    summary = rows(record["results"], reference)
    wide = Console(width=max(console.width, WIDE))
    if record.get("connections"):
        wide.print(f"every scenario with {record['connections']:,} connections", style="bold")
    report.show(wide, summary, record["missing"], reference)
    if summary:
        report.picture(base.with_suffix(".png"), summary)
        console.print(f"picture: {base}.png", highlight=False)


@main.command()
@click.argument("results", type=click.Path(exists=True, path_type=Path))
def show(results: Path) -> None:
    """Show the table and draw the picture of recorded RESULTS again."""
    _show(json.loads(results.read_text()), results.with_suffix(""))


@main.command(name="list")
def list_() -> None:
    """Name the arms and the scenarios."""
    for arm in ARMS.values():
        console.print(f"{arm.name:24} {arm.title}", highlight=False)
    console.print()
    for name, group in SCENARIOS.items():
        console.print(f"{name:24} {'; '.join(scenario.what for scenario in group)}", highlight=False)


@main.command()
@click.option(
    "--arms", default="", help="Comma-separated names; default: those that need only Python packages."
)
def smoke(arms: str) -> None:
    """Start each arm, deliver for two seconds; fail on anything missing, lost, doubled or out of order."""
    present, _, missing = build(choose(arms) if arms else [arm for arm in ARMS.values() if arm.pip_only])
    bad = list(missing)
    for arm in present:
        wrong = _smoke(arm)
        console.print(f"{arm.name}: {'; '.join(wrong) or 'delivers'}", highlight=False)
        if wrong:
            bad.append(arm.name)
    if bad:
        raise click.ClickException(f"not delivering: {', '.join(bad)}")


def _smoke(arm: Arm) -> list[str]:
    """What is wrong with an arm; empty when it delivers."""
    result = Trial(arm, SMOKE, 1, say=lambda _: None).run()
    # A loaded machine may make the window void; whether the arm works is another matter.
    if "final" not in result:
        return list(result["reasons"])
    found = [f"{count} {kind}" for kind, count in faults(result).items()]
    return found if result["final"]["delivered"] else [*found, "nothing was delivered"]


main.add_command(footprint)

if __name__ == "__main__":
    main()
