"""The answer on a terminal; plain text where there is none."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from odinws.experiment.kinds import Records
from odinws.experiment.measures import MEASURES
from odinws.experiment.result import Check, Errors, Result, Row, Verdict, chance, figure, percent
from odinws.experiment.samples import Samples, samples

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
    console.print(Text(result.answer, style=_COLOURS[result.verdict]), end="\n\n")
    for arm in result.arms:
        if rows := [row for row in result.measures if row.arm == arm.arm]:
            console.print(_comparison(rows))
    if result.errors:
        console.print(_errors(result.errors))
    print_checks(result.checks, console)


def _errors(errors: Sequence[Errors]) -> Table:
    table = _table(("round", "arm", "times", "cause"), left=("arm", "cause"))
    table.title, table.title_justify = "why connections failed or ended", "left"
    for trial in errors:
        for cause, times in trial.counts.items():
            table.add_row(str(trial.round), trial.arm, f"{times:,}", cause)
    return table


def _comparison(rows: Sequence[Row]) -> Table:
    names = ("measure", "baseline", "arm", "shift", "from", "to", "p", "effect", "n", "verdict")
    table = _table(names, left=("measure", "verdict"))
    table.title, table.title_justify = f"{rows[0].arm} against {rows[0].baseline}", "left"
    for row in rows:
        tested: tuple[str, ...] = ("",) * 5
        if row.shift is not None and row.interval and row.p is not None and row.effect is not None:
            p = chance(row.p).removeprefix("p ").removeprefix("= ")
            tested = (*map(percent, (row.shift, *row.interval)), p, f"{row.effect:+.2f}")
        table.add_row(
            MEASURES[row.measure].title,
            figure(row.baseline_value, row.unit),
            figure(row.value, row.unit),
            *tested,
            str(row.n),
            Text(f"{row.verdict}{f': {row.why}' if row.why else ''}", style=_COLOURS[row.verdict]),
        )
    return table


def _table(names: Sequence[str], left: Collection[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, justify="left" if name in left else "right")
    return table


def print_checks(checks: Sequence[Check], console: Console) -> None:
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
    found = samples(records.trials, records.seconds)
    console.print(_trials(records, found), end="\n\n")
    console.print(_values(records, found))


def _trials(records: Records, found: Samples) -> Table:
    primary = MEASURES[records.run.plan.primary]
    names = ("round", "arm", "status", primary.title, "connections", "messages", "swarm CPU", "problem")
    table = _table(names, left=("arm", "status", "problem"))
    for trial in records.trials:
        value = found[primary.name].get(trial.arm, {}).get(trial.round)
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


def _values(records: Records, found: Samples) -> Table:
    arms, first = [arm.name for arm in records.run.plan.arms], "lowest and highest of the trials"
    table = _table([first, *arms], left=(first,))
    for name, by_arm in found.items():
        each = [sorted(by_arm.get(arm, {}).values()) for arm in arms]
        if any(each):
            unit = MEASURES[name].unit
            cells = [f"{figure(values[0])} - {figure(values[-1], unit)}" if values else "" for values in each]
            table.add_row(MEASURES[name].title, *cells)
    return table
