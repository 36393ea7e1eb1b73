"""`python -m odinws experiment …`.

Exit status of `run` and `compare`: 0 better or no difference shown, 1 worse or unstable, 2 a wrong plan or
option, 3 failed, partial, or broken records. Of `check`: 1 if there is an error among what it says.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from odinws import resources
from odinws.errors import OdinError

if TYPE_CHECKING:
    from rich.console import Console

    from odinws.experiment.plan import Plan
    from odinws.experiment.result import Check

_TOOLS = ("numpy", "scipy", "plotly", "tomlkit", "jinja2")
_WIDTH = 150  # of a table that goes into a file
_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)


class PlanPath(click.Path):
    """A file, or the name of a plan that comes with odinws."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not Path(value).exists():
            shipped = _shipped_plans()
            if str(value) not in shipped:
                self.fail(
                    f"{str(value)!r} is neither a file nor a plan that comes with odinws: "
                    f"give one of {', '.join(shipped)}, or the path of a TOML file",
                    param,
                    ctx,
                )
            value = shipped[str(value)]
        return super().convert(value, param, ctx)


def _shipped_plans() -> dict[str, Path]:
    return {path.stem: path for path in sorted(resources.find("conf/experiments").glob("*.toml"))}


class Failure(click.ClickException):
    """Nothing is wrong with the command line, and yet there is no answer."""

    exit_code = 3


@contextlib.contextmanager
def errors_in_words() -> Iterator[None]:
    """What may go wrong with plans, records and missing libraries as one line and an exit status."""
    from odinws.experiment.plan import PlanError

    try:
        yield
    except PlanError as error:
        raise click.UsageError(str(error)) from None
    except OdinError as error:
        raise Failure(str(error)) from None
    except OSError as error:
        raise Failure(f"{error.filename}: {error.strerror}") from None
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in _TOOLS:
            raise
        raise Failure(f"{library} is not installed: pip install 'odinws[experiment]'") from None


@click.group()
def experiment() -> None:
    """Configurations side by side on the same feed: which is better, and how sure is that?"""


@experiment.command()
@click.argument("name", metavar="PLAN", required=False)
def plan(name: str | None) -> None:
    """Print a plan that comes with odinws, as a start of one's own; without PLAN, list their names."""
    shipped = _shipped_plans()
    if name is None:
        click.echo("\n".join(shipped))
        return
    if name not in shipped:
        raise click.UsageError(f"no plan {name!r} comes with odinws: expected one of {', '.join(shipped)}")
    click.echo(shipped[name].read_text(), nl=False)


@experiment.command()
@click.argument("path", metavar="PLAN|DIR", type=PlanPath(exists=True, path_type=Path))
@click.option("--measure", is_flag=True, help="Also start servers of the plan, and try its ramp.")
@errors_in_words()
def check(path: Path, measure: bool) -> int:
    """Say what speaks against a plan (a file) or a run (its directory), and what to do."""
    from odinws.experiment.checking import check_plan
    from odinws.experiment.record import read
    from odinws.experiment.report.terminal import print_checks
    from odinws.experiment.verdict import judge

    if path.is_dir():
        checks = judge(read(path)).checks
    else:
        plan = read_plan(path)
        click.echo(f"{plan.name}: {plan.question}", err=True)
        checks = check_plan(plan)
        if measure:
            checks += calibrated(plan)
    print_checks(checks, console())
    if not checks:
        click.echo("nothing speaks against it")
    return int(any(check.severity == "error" for check in checks))


@experiment.command()
@click.argument("path", metavar="PLAN", type=PlanPath(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", metavar="DIR", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--rounds", type=click.IntRange(1, 200), help="Trials of each arm. [default: the plan's]")
@click.option("--seconds", type=click.FloatRange(1, 86_400), help="That are measured of each trial.")
@click.option("--connections", type=click.IntRange(1, 100_000), help="To each arm.")
@errors_in_words()
def run(path: Path, out: Path, rounds: int | None, seconds: float | None, connections: int | None) -> int:
    """Run a plan, and write records.jsonl, result.json and report.html to DIR.

    Servers of the plan are tried first: does this machine take clients as fast as they are to come?
    PLAN is a file, or the name of one that comes with odinws: a-a, strategies and so on.
    Ctrl-C ends it in order and keeps what was measured. `compare DIR` gives the same answer again.
    """
    from odinws.experiment import report
    from odinws.experiment import run as running
    from odinws.experiment.plan import PlanError
    from odinws.experiment.report.terminal import print_result

    plan = running.changed(read_plan(path), rounds, seconds, connections)
    for check in calibrated(plan):
        said = f"{check.text}: {check.what_to_do}"
        if check.severity == "error":
            raise PlanError(str(path), "", "", said)
        click.echo(f"odinws: {said}", err=True)
    end = running.run(plan, out)
    if end.why:
        click.echo(f"odinws: the run is partial: {end.why}", err=True)
    result = report.finish(out)
    print_result(result, console())
    click.echo(f"{out / 'report.html'} has the pictures, {out / 'records.jsonl'} all that was measured")
    return result.exit_status


@experiment.command()
@click.argument("directory", metavar="DIR", type=_DIRECTORY)
@click.argument("other", metavar="[DIR2]", type=_DIRECTORY, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print what result.json has instead of a table.")
@errors_in_words()
def compare(directory: Path, other: Path | None, as_json: bool) -> int:
    """Judge a run anew from its records, or say what has changed from DIR to DIR2.

    With one directory, result.json and report.html are written anew. Two runs are compared arm by arm.
    """
    import msgspec

    from odinws.experiment import report
    from odinws.experiment.record import read
    from odinws.experiment.report.terminal import print_result
    from odinws.experiment.verdict import judge_between

    result = report.finish(directory) if other is None else judge_between(read(directory), read(other))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(result), indent=2))
    else:
        print_result(result, console())
    return result.exit_status


@experiment.command()
@click.argument("directory", metavar="DIR", type=_DIRECTORY)
@errors_in_words()
def show(directory: Path) -> None:
    """Print what a run was: machine, versions, settings, its trials and what they measured."""
    from odinws.experiment.record import read
    from odinws.experiment.report.terminal import print_records

    print_records(read(directory), console())


def calibrated(plan: Plan) -> list[Check]:
    """What a trial of the plan's ramp says. Raises SwarmError, EmbeddedNatsError and FeedLostError."""
    import asyncio

    from odinws.experiment import load
    from odinws.experiment.calibration import calibrate

    load.check()
    return asyncio.run(calibrate(plan, lambda text: click.echo(text, err=True)))


def console() -> Console:
    """Where tables go: the terminal, or text that is wide enough for them."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH)


def read_plan(path: Path) -> Plan:
    """Read a plan that can be carried out. Raises PlanError, and OSError when it can't be read."""
    from odinws.experiment import arms
    from odinws.experiment.plan import PlanError, parse

    try:
        plan = parse(path.read_text(), str(path))
    except UnicodeDecodeError:
        raise PlanError(str(path), "", "", "this is no TOML: it is not UTF-8") from None
    arms.check(plan, str(path))
    return plan
