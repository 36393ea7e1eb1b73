"""`python -m odinws rollout …`: status, set, watch, check."""

from __future__ import annotations

import contextlib
import json
import socket
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from odinws import resources
from odinws.debug.http_client import read_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from odinws.rollout.flags import Document
    from odinws.rollout.record import Record

_COLOURS = {"good": "green", "bad": "red", "": None}
_EXITS = {"done": 0, "set back": 1, "failed": 1, "changed": 1, "waiting": 3, "interrupted": 130}


def _existing(_: click.Context, __: click.Parameter, path: str) -> str:
    """An installed odinws has no default file; the one that came with it is not what servers read."""
    if not Path(path).exists():
        raise click.UsageError(
            f"{path}: no such file: name the one that the servers read with --file or WS_FLAGS_FILE; "
            f"{resources.find('conf/flags.json')} is one to copy"
        )
    return path


_file = click.option(
    "--file", "path", envvar="WS_FLAGS_FILE", default="conf/flags.json", show_default=True, show_envvar=True,
    callback=_existing, help="The file of flags.",
)  # fmt: skip
_urls = click.option(
    "--url", "urls", multiple=True, default=("http://127.0.0.1:3005",), show_default=True,
    help="The admin plane of a running server, unix:/path for a socket; may be given several times.",
)  # fmt: skip
_token = click.option(
    "--token-file", "token", envvar="WS_ADMIN_TOKEN_FILE", show_envvar=True,
    callback=lambda _, __, path: read_token(path),
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with their WS_ADMIN_TOKEN, if they ask for one. [default: what WS_ADMIN_TOKEN says]",
)  # fmt: skip
_variant = click.option("--variant", help="[default: the one that the file rolls out now]")


@click.group()
def rollout() -> None:
    """Move workers to another strategy by the flag `shard-strategy`, step by step, and back."""


@rollout.command()
@_file
@_urls
@_token
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(path: str, urls: tuple[str, ...], token: str, as_json: bool) -> None:
    """What the file wants, and what the running servers have. Exit status 1: they differ."""
    from odinws.rollout import flags
    from odinws.rollout.fleet import Fleet, FleetError
    from odinws.rollout.members import wanted

    document = _read(path)
    shares = flags.shares(document)
    servers: list[dict[str, object]] = []
    found = {"file": path, "shares": shares, "servers": servers}
    lines = [f"{path}: {_words(shares)}"]
    agree = True
    for url in urls:
        try:
            [server] = Fleet([url], token).read()
        except FleetError as error:
            servers.append({"url": url, "problem": str(error)})
            lines.append(click.style(str(error), fg="red"))
            agree = False
            continue
        rolled = flags.rollout(document)
        fits = not server.problem and bool(server.flags_file)
        if fits and rolled is not None:
            fits = server.has(rolled[0], wanted([server], rolled[1])[server.url])
        agree = agree and fits
        count = Counter(worker.variant for worker in server.workers)
        words = ", ".join(f"{variant} {number}" for variant, number in sorted(count.items()))
        note = server.problem or ("" if server.flags_file else "it has no WS_FLAGS_FILE")
        servers.append(
            {
                "url": url,
                "agrees": fits,
                "problem": note,
                "workers": [
                    {name: worker.stats[name] for name in ("place", "slot", "pid", "strategy", "variant")}
                    | {"reason": worker.reason, "connections": worker.connections}
                    for worker in server.workers
                ],
            }
        )
        lines.append(f"{url}: {words} of {server.worker_count} workers{f'; {note}' if note else ''}")
        if not fits:
            lines[-1] = click.style(f"{lines[-1]}; this is not what the file wants (yet)", fg="yellow")
        lines += [
            f"  place {worker.ordinal}  pid {worker.pid}  "
            f"{worker.variant} ({worker.strategy}, {worker.reason})"
            f"  {worker.connections:,} connections{'' if worker.steady else ', starting or leaving'}"
            for worker in sorted(server.workers, key=lambda worker: worker.ordinal)
        ]
    click.echo(json.dumps(found, indent=2) if as_json else "\n".join(lines))
    if not agree:
        raise click.exceptions.Exit(1)


@rollout.command("set")
@click.argument("percent", type=click.IntRange(0, 100))
@_variant
@_file
def set_(percent: int, variant: str | None, path: str) -> None:
    """Give PERCENT of the workers the variant, and the others the default variant.

    The file is replaced at one instant; the servers see it within a second and replace the workers that
    change, one after another.
    """
    from odinws.rollout import flags

    document = _read(path)
    variant = _chosen(document, variant, path)
    document = flags.with_share(document, variant, percent)
    try:
        flags.write(path, document)
    except flags.FlagsError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{path}: {_words(flags.shares(document))}")


@rollout.command()
@_variant
@_file
@_urls
@_token
@click.option("--steps", default="5,25,50,100", show_default=True, help="Shares in percent.")
@click.option("--settle", default=10.0, show_default=True, type=click.FloatRange(0, 3600), help="Seconds.")
@click.option("--window", default=5.0, show_default=True, type=click.FloatRange(1, 3600), help="Seconds.")
@click.option("--windows", default=4, show_default=True, type=click.IntRange(3, 1000), help="Of a good step.")
@click.option(
    "--patience",
    default=300.0,
    show_default=True,
    type=click.FloatRange(0, 86_400),
    help="Seconds for enough data.",
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Where to put the report.")
def watch(
    variant: str | None,
    path: str,
    urls: tuple[str, ...],
    token: str,
    steps: str,
    settle: float,
    window: float,
    windows: int,
    patience: float,
    out: Path | None,
) -> int:
    """Roll the variant out by steps; go on while it does no harm, else set the flag back and say why.

    Exit status: 0 all workers have it; 1 set back, or failed; 3 too few data, the share stays; 130 Ctrl-C,
    the share stays.
    """
    from odinws.rollout.flags import FlagsError
    from odinws.rollout.fleet import Fleet, FleetError
    from odinws.rollout.watch import Pace, Watch

    variant = _chosen(_read(path), variant, path)
    pace = Pace(settle, window, windows, patience)
    watching = Watch(Fleet(urls, token), path, variant, pace, _tell, _saver(out))
    try:
        record = watching.run(_steps(steps))
    except (FlagsError, FleetError) as error:
        raise click.ClickException(str(error)) from None
    colour = {"done": "good", "set back": "bad", "failed": "bad"}.get(record.verdict, "")
    _tell(f"{variant}: {record.verdict}. {record.reason} The flag stands at {record.percent:g} %.", colour)
    return _EXITS[record.verdict]


@rollout.command()
@click.argument("path")
@click.option("--workers", type=click.IntRange(1, 128), default=1, show_default=True)
@click.option("--deployment", default="development", show_default=True)
@click.option("--host", default=socket.gethostname, help="[default: this machine]")
def check(path: str, workers: int, deployment: str, host: str) -> None:
    """Say what the workers of a server would run, or why the file can't be used."""
    from odinws.rollout.evaluation import Evaluation
    from odinws.rollout.flags import FlagsError

    try:
        assignments = Evaluation(deployment, host, workers).assign_all(path, _read(path))
    except FlagsError as error:
        raise click.ClickException(str(error)) from None
    count = Counter(assignment.variant for assignment in assignments)
    words = ", ".join(f"{variant} {number}" for variant, number in sorted(count.items()))
    click.echo(f"{words} of {workers} workers, by {path}")


def _read(path: str) -> Document:
    from odinws.rollout.flags import FlagsError, read

    try:
        return read(path)
    except FlagsError as error:
        raise click.ClickException(str(error)) from None


def _chosen(document: Document, variant: str | None, path: str) -> str:
    from odinws.rollout.flags import rollout
    from odinws.rollout.targeting import FLAG

    flag = document["flags"][FLAG]
    others = [name for name in flag["variants"] if name != flag["defaultVariant"]]
    if variant is None:
        rolled = rollout(document)
        if rolled is None:
            raise click.ClickException(f"{path} rolls nothing out yet: --variant {' or '.join(others)}")
        return rolled[0]
    if variant not in others:
        raise click.ClickException(f"--variant {variant}: expected one of {', '.join(others)}, see {path}")
    return variant


def _steps(text: str) -> list[int]:
    try:
        steps = [int(part) for part in text.split(",")]
    except ValueError:
        steps = []
    if not steps or steps != sorted(set(steps)) or not 1 <= steps[0] <= steps[-1] <= 100:
        raise click.ClickException(f"--steps {text}: expected whole percents that rise, as 5,25,50,100")
    return steps


def _words(shares: dict[str, float] | None) -> str:
    if shares is None:
        return "not a plain share: disabled, or a rule of another kind"
    return ", ".join(f"{variant} {percent:g} %" for variant, percent in shares.items())


def _tell(line: str, kind: str) -> None:
    with contextlib.suppress(OSError):  # to watch matters more
        click.secho(line, fg=_COLOURS[kind])


def _saver(out: Path | None) -> Callable[[Record], None]:
    def save(record: Record) -> None:
        if out is not None:
            try:
                record.save(out)
            except OSError as error:  # the watch matters more
                _tell(f"the report can't be written: {error.strerror}", "bad")

    return save
