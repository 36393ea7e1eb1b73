"""The answer on a terminal; plain text where there is none."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from odinws.experiment.kinds import Records
from odinws.experiment.measures import MEASURES
from odinws.experiment.result import Check, Result, Row, Verdict
from odinws.experiment.samples import samples
from odinws.experiment.words import chance, figure, percent

_COLOURS = {
    Verdict.BETTER: "green",
    Verdict.WORSE: "red",
    Verdict.NO_DIFFERENCE: "default",
    Verdict.UNSTABLE: "yellow",
    Verdict.FAILED: "bold red",
}
_SEVERITIES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def print_result(result: Result, console: Console) -> None:
    """The answer, what it rests on, and what speaks against it."""
    console.print(Text(result.answer, style=_COLOURS[result.verdict]))
    console.print()
    for arm in result.arms:
        rows = [row for row in result.measures if row.arm == arm.arm]
        if rows:
            console.print(_table(f"{arm.arm} against {rows[0].baseline}", rows))
    print_checks(result.checks, console)


def _table(title: str, rows: Sequence[Row]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column("measure")
    for name in ("baseline", "arm", "shift", "from", "to", "p", "effect", "n"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for row in rows:
        table.add_row(
            MEASURES[row.measure].title,
            figure(row.baseline_value, row.unit),
            figure(row.value, row.unit),
            *_tested(row),
            str(row.n),
            Text(f"{row.verdict}{f': {row.why}' if row.why else ''}", style=_COLOURS[row.verdict]),
        )
    return table


def _tested(row: Row) -> tuple[str, ...]:
    if row.shift is None or row.interval is None or row.p is None or row.effect is None:
        return ("",) * 5
    low, high = row.interval
    p = chance(row.p).removeprefix("p ").removeprefix("= ")
    return percent(row.shift), percent(low), percent(high), p, f"{row.effect:+.2f}"


def print_checks(checks: Sequence[Check], console: Console) -> None:
    """What speaks against an answer, and what to do."""
    for check in checks:
        line = Text(check.severity, style=_SEVERITIES[check.severity])
        line.append(f": {check.text}", style="default")
        if check.what_to_do:
            line.append(f" -> {check.what_to_do}", style="dim")
        console.print(line)


def print_records(records: Records, console: Console) -> None:
    """What a run was, and what its trials measured."""
    run, plan = records.run, records.run.plan
    console.print(f"{plan.name}: {plan.question}")
    console.print(f"started {run.started}, {records.end.status} {records.end.why}".rstrip())
    machine = run.machine
    console.print(
        f"{machine.cpu}, {machine.cores} cores, {machine.memory / 2**30:.1f} GiB, kernel {machine.kernel}"
    )
    console.print(", ".join(f"{name} {version}" for name, version in run.versions.items()))
    for arm in plan.arms:
        settings = " ".join(f"{name}={value}" for name, value in arm.environ.items())
        console.print(f"{arm.name}{' (baseline)' if arm.baseline else ''}: {settings or 'the defaults'}")
    console.print()
    console.print(_trials(records))
    console.print()
    console.print(_values(records))


def _trials(records: Records) -> Table:
    plan = records.run.plan
    primary = MEASURES[plan.primary]
    found = samples(records.trials, records.seconds)[plan.primary]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("round", "arm", "status", primary.title, "connections", "messages", "swarm CPU", "problem"):
        table.add_column(name, justify="left" if name in ("arm", "status", "problem") else "right")
    for trial in records.trials:
        value = found.get(trial.arm, {}).get(trial.round)
        table.add_row(
            str(trial.round),
            trial.arm,
            Text(trial.status, style="default" if trial.status == "ok" else "red"),
            "" if value is None else figure(value, primary.unit),
            f"{trial.assigned.connections:,}",
            f"{trial.assigned.messages_published:,}",
            percent(trial.swarm.cpu_percent / 100, signed=False),
            trial.problem or trial.swarm.why,
        )
    return table


def _values(records: Records) -> Table:
    arms = [arm.name for arm in records.run.plan.arms]
    found = samples(records.trials, records.seconds)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("lowest and highest of the trials")
    for arm in arms:
        table.add_column(arm, justify="right")
    for name, by_arm in found.items():
        if not any(by_arm.values()):
            continue
        cells = []
        for arm in arms:
            values = sorted(by_arm.get(arm, {}).values())
            unit = MEASURES[name].unit
            cells.append(f"{figure(values[0])} - {figure(values[-1], unit)}" if values else "")
        table.add_row(MEASURES[name].title, *cells)
    return table
