"""`python -m odinws debug …`: look into a server that runs."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from odinws.debug.http_client import RequestError, Server, read_token
from odinws.debug.verbs import VERBS, Option, Verb

# Which form a file has, by the end of its name.
_ENDINGS = {"html": ".html", "collapsed": ".txt", "speedscope": ".speedscope.json", "json": ".json"}


@click.group()
def debug() -> None:
    """Look into a server that runs: where its time goes, its memory, its locks."""


def _common() -> list[click.Parameter]:
    """The options of every verb: which server, and how it is entered."""
    return [
        click.Option(
            ["--url"],
            default="http://127.0.0.1:3005",
            show_default=True,
            help="The server's admin plane; unix:/path for a socket.",
        ),
        click.Option(
            ["--token-file"],
            envvar="WS_ADMIN_TOKEN_FILE",
            show_envvar=True,
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="A file with its WS_ADMIN_TOKEN, if it asks for one.  [default: what WS_ADMIN_TOKEN says]",
        ),
    ]


@contextlib.contextmanager
def _entered(url: str, token_file: Path | None) -> Iterator[Server]:
    """The server; what goes wrong with it becomes one line."""
    try:
        yield Server(url, read_token(token_file))
    except RequestError as error:
        raise click.ClickException(str(error)) from None


def _command(name: str, verb: Verb) -> click.Command:
    """The command of a view; its options are those of the view."""

    def run(url: str, token_file: Path | None, out: Path | None, as_json: bool, **options: Any) -> None:
        form = "json" if out is None else _form(out, verb)
        wanted = {key: value for key, value in options.items() if value is not None}
        with _entered(url, token_file) as server, _patience(float(wanted.get("seconds", 0.0))):
            body = server.get(f"/debug/{name}", {**wanted, "format": form})
        if out is not None:
            out.write_bytes(body)
            click.echo(f"{out}: {len(body):,} bytes")
        elif as_json:
            click.echo(body.decode(), nl=False)
        else:
            from odinws.debug.tables import show

            show(name, json.loads(body)["workers"])

    endings = ", ".join(ending for form, ending in _ENDINGS.items() if form in verb.formats)
    params = [
        *_common(),
        *(_option(key, option) for key, option in verb.options.items()),
        click.Option(["--worker"], metavar="PID", help="One worker.  [default: all]"),
        click.Option(
            ["--out"],
            type=click.Path(dir_okay=False, writable=True, path_type=Path),
            help=f"Write a file instead; its name ends in {endings}.",
        ),
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON instead of tables."),
    ]
    return click.Command(name, callback=run, params=params, help=f"{verb.about[0].upper()}{verb.about[1:]}.")


def _option(key: str, option: Option) -> click.Option:
    """An option of a view. The server knows the bounds too, and says the same."""
    kind: click.ParamType[Any]
    if option.words:
        kind = click.Choice(option.words)
    elif isinstance(option.default, int):
        kind = click.IntRange(int(option.low or 0), int(option.high or 0))
    else:
        kind = click.FloatRange(option.low, option.high)
    text = f"{option.about[0].upper()}{option.about[1:]}."
    return click.Option([f"--{key}"], type=kind, default=option.default, show_default=True, help=text)


def _form(out: Path, verb: Verb) -> str:
    for form, ending in _ENDINGS.items():
        if form in verb.formats and out.name.endswith(ending):
            return form
    endings = ", ".join(ending for form, ending in _ENDINGS.items() if form in verb.formats)
    raise click.UsageError(f"--out is {str(out)!r}, its name must end in one of {endings}")


@contextlib.contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Say on a terminal that it takes a while."""
    if seconds < 1.0 or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(f"watching for {seconds:g} s"):
        yield


def _top(url: str, token_file: Path | None, every: float, count: int | None) -> None:
    from odinws.debug.top import run

    with _entered(url, token_file) as server:
        run(server, every, count)


for _name, _each in VERBS.items():
    debug.add_command(_command(_name, _each))
debug.add_command(
    click.Command(
        "top",
        callback=_top,
        params=[
            *_common(),
            click.Option(
                ["--every"], type=click.FloatRange(0.5, 60), default=1.0, show_default=True, help="Seconds."
            ),
            click.Option(["--count"], type=click.IntRange(1), help="End after so many.  [default: Ctrl-C]"),
        ],
        help="What each worker does, live.",
    )
)
