"""`odinws …`, or `python -m odinws …`: the command line.

Each verb imports what it needs when it runs: `--help` stays quick, and no verb pays for another's libraries.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib.util
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from odinws import __version__
from odinws.debug.cli import debug
from odinws.experiment.commands import experiment
from odinws.feed import simulator
from odinws.rollout.commands import rollout
from odinws.strategies_cli import strategies

if TYPE_CHECKING:
    from odinws.check import Finding
    from odinws.feed.publisher import PublishOptions, PublishResult

_MAX_TOKENS = 1000
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]*)?")
_LINE_SECONDS = 10.0  # between two progress lines in a log
_REFRESH_SECONDS = 0.25  # of the progress on a terminal
_EXTRAS = {
    "websockets": "client",
    "locust": "experiment",
    "numpy": "experiment",
    "plotly": "experiment",
    "scipy": "experiment",
    "tomlkit": "experiment",
    "matplotlib": "bench",
}  # by what is missing; all else is the server's
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}  # where output goes
_VERB_EXTRAS = {"experiment": "experiment"}  # of verbs that need more than a server: one advice, not two


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """A WebSocket server that carries a live NATS feed."""


cli.add_command(debug)
cli.add_command(rollout)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code.

    0, 2 after one line on stderr about a wrong option, or 1 after one about a package that is not installed,
    or about output that can't be written.

    Args:
        arguments: Without the program's name; None takes the process's own.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if "" not in sys.path:
        sys.path.append("")  # as for the server: a strategy may lie in this directory
    try:
        # Not click's standalone mode: that one prints the usage and a hint around every error.
        code = cli.main(arguments, prog_name="odinws", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.ClickException as error:
        click.echo(f"odinws: {error.format_message()}", err=True)
        return error.exit_code
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "odinws", "strategies"):
            raise
        click.echo(f"odinws: {_not_installed(missing, _VERB_EXTRAS.get(arguments[0]))}", err=True)
        return 1
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        with contextlib.suppress(OSError):  # at the exit Python would try to write what is left
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        click.echo(f"odinws: the output can't be written: {error.strerror}", err=True)
        return 1
    except click.Abort:  # Ctrl-C before a verb had taken charge of it
        return 128 + signal.SIGINT
    return code if isinstance(code, int) else 0


def _not_installed(package: str, extra: str | None = None) -> str:
    extra = extra or _EXTRAS.get(package, "server")
    return f"{package} is not installed: pip install 'odinws[{extra}]'"


@cli.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def serve(context: click.Context, options: tuple[str, ...]) -> None:
    """Run the server until Ctrl-C or SIGTERM. OPTIONS are those of gunicorn.

    Environment variables say what it serves: `odinws settings` lists them, `odinws check` looks at them.
    """
    if options in (("-h",), ("--help",)):
        click.echo(context.get_help())
        return
    for package in ("gunicorn", "gevent", "msgspec"):
        if importlib.util.find_spec(package) is None:
            raise click.ClickException(_not_installed(package))
    # By its path: what gunicorn takes by a module's name, it does not read again on SIGHUP.
    configuration = str(Path(__file__).with_name("gunicorn_conf.py"))
    # In place of this process: the arbiter must be young when gevent patches its workers.
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", "-c", configuration, *options])  # noqa: S606


@cli.group(invoke_without_command=True)
@click.option("--offline", is_flag=True, help="Leave NATS out.")
@click.pass_context
def check(context: click.Context, offline: bool) -> int:
    """Look at settings, channels, keys, flags and NATS as a server would find them, without starting one.

    A line each. Exit status: 0, or 1 if there is a problem.
    """
    if context.invoked_subcommand is not None:
        return 0
    from odinws.check import findings

    return _tell(findings(offline=offline))


@check.command("channel")
@click.argument("name")
@click.option("--token", help="Of who asks. [default: somebody without one]")
def check_channel(name: str, token: str | None) -> int:
    """Say which rule decides on the channel or wildcard NAME, its subject in NATS, and who may have it.

    Exit status: 0, or 1 if it can't be subscribed to.
    """
    from odinws.check import channel

    return _tell(channel(name, token))


def _tell(found: Sequence[Finding]) -> int:
    """A line for each finding; the exit status."""
    for finding in found:
        click.echo(finding)
    return int(any(finding.is_problem for finding in found))


@cli.command()
@click.option(
    "--nats-url",
    envvar="NATS_URL",
    default="nats://127.0.0.1:4222",
    show_default=True,
    show_envvar=True,
    help="Where to publish.",
)
@click.option(
    "--rate",
    type=float,
    default=simulator.DEFAULT_RATE,
    show_default=True,
    help="Price messages per second, over all tokens together.",
)
@click.option(
    "--tokens",
    default=str(len(simulator.TOKENS)),
    show_default=True,
    callback=lambda _, __, text: _token_names(text),
    help="How many tokens, or their names with commas between them.",
)
@click.option(
    "--spacing",
    type=click.Choice([spacing.value for spacing in simulator.Spacing]),
    default=simulator.Spacing.BURST.value,
    show_default=True,
    callback=lambda _, __, word: simulator.Spacing(word),
    help="All tokens at one instant, or one after the other at equal distances.",
)
@click.option("--seed", type=int, help="The same seed gives the same prices. [default: a new one]")
@click.option("--count", type=int, help="End after so many messages. [default: no end]")
@click.option(
    "--duration",
    "duration_seconds",
    type=float,
    metavar="SECONDS",
    help="End after this time. [default: no end]",
)
@click.option("--prefix", default=simulator.DEFAULT_PREFIX, show_default=True, help="Of every subject.")
@click.option(
    "--statistics",
    "statistics_seconds",
    type=float,
    metavar="SECONDS",
    help="Distance of the market statistics. [default: none]",
)
def publish(**given: Any) -> None:
    """Publish a simulated market to NATS, by default like the original feed: bursts of ten.

    It waits for NATS, and goes on when NATS comes back. Ctrl-C ends it; the last line says what was achieved.
    """
    from odinws.feed.publisher import OptionError, PublishOptions

    try:
        options = PublishOptions(**given)
    except OptionError as error:
        raise click.UsageError(f"--{error}") from error
    with _progress() as (show, every_seconds):
        result = asyncio.run(_publish(options, show, every_seconds))
    click.echo(_summary(result, options.rate))


def _token_names(text: str) -> tuple[str, ...]:
    if not _NUMBER.fullmatch(text):
        return tuple(text.split(","))
    if not (text.isdecimal() and 1 <= int(text) <= _MAX_TOKENS):
        raise click.UsageError(
            f"--tokens is {text}: must be a whole number from 1 to {_MAX_TOKENS}, "
            "or names with commas between them"
        )
    return simulator.token_names(int(text))


async def _publish(
    options: PublishOptions, show: Callable[[PublishResult], None], every_seconds: float
) -> PublishResult:
    from odinws.feed.publisher import Publisher

    publisher = Publisher(options, progress=show, progress_seconds=every_seconds)
    run = asyncio.create_task(publisher.run())
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, run.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await run
    return publisher.result()


@contextlib.contextmanager
def _progress() -> Iterator[tuple[Callable[[PublishResult], None], float]]:
    """Give a function that shows how far a publisher is, and how often to call it. It writes to stderr."""
    if not sys.stderr.isatty():
        yield lambda result: click.echo(_line(result), err=True), _LINE_SECONDS
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(
        Text("waiting for NATS"), console=Console(stderr=True), transient=True, auto_refresh=False
    ) as live:
        yield lambda result: live.update(Text(_line(result)), refresh=True), _REFRESH_SECONDS


def _line(result: PublishResult) -> str:
    line = f"{result.seconds:.1f} s: {result.published:,} messages, {result.rate:,.2f}/s"
    if result.late_seconds >= 0.1:
        line += f", late by {result.late_seconds:.1f} s"
    return line if result.connected else f"{line}, waiting for NATS: {result.error or 'no answer yet'}"


def _summary(result: PublishResult, asked_rate: float) -> str:
    line = (
        f"published {result.published} messages in {result.seconds:.2f} s: "
        f"{result.rate:.2f}/s of {asked_rate:g}/s, "
        f"longest lateness {result.longest_late_seconds * 1000:.1f} ms, reconnects {result.reconnects}"
    )
    if not result.published and result.error:
        return f"{line}; NATS did not take any: {result.error}"
    return line if result.confirmed else f"{line}; the server did not confirm the last of them"


@cli.command()
def settings() -> None:
    """Print the settings of the server as a table in Markdown."""
    from odinws.settings import Settings, describe

    click.echo("| variable | takes | default | what it is |")
    click.echo("|---|---|---|---|")
    for name, allowed, default, about in describe(Settings):
        cells = (f"`{name}`", allowed, default, about)
        click.echo("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")


@cli.command()
def close_codes() -> None:
    """Print what each close code means to clients of each protocol, as tables in Markdown."""
    from odinws.close_codes import centrifugo_table, table

    click.echo(f"{table()}\n{centrifugo_table()}", nl=False)


@cli.command()
def metrics() -> None:
    """Print what `/metrics` tells as a page in Markdown."""
    from odinws.metrics.documentation import page

    click.echo(page(), nl=False)


@cli.command()
def keys() -> None:
    """Say which keys tokens are checked with, or why they can't be used."""
    from odinws.admission.authentication import sources
    from odinws.errors import SettingsError
    from odinws.settings import Settings

    now = time.time()
    try:
        found = [key for source in sources(Settings.from_environ(), now) for key in source.keys(now)]
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    for key in found:
        click.echo(f"{key.algorithm} {key.kid or '(no name)'}")
    if not found:
        click.echo("none: no client needs a token, and none can have user.* channels")


cli.add_command(experiment)
cli.add_command(strategies)


@cli.group()
def lab() -> None:
    """Experiments on the real parts."""


@lab.command()
@click.option("--rate", default=25.0, show_default=True, type=click.FloatRange(1, 10_000), help="Messages/s.")
@click.option("--seconds", default=40.0, show_default=True, type=click.FloatRange(5, 3600), help="How long.")
@click.option("--out", type=click.Path(dir_okay=False), help="Where to draw the picture (needs matplotlib).")
def redelivery(rate: float, seconds: float, out: str | None) -> None:
    """What consumers that refuse messages do to their own feed, as the predecessor's did."""
    if out is not None and importlib.util.find_spec("matplotlib") is None:
        raise click.UsageError(f"--out: {_not_installed('matplotlib')}")
    from odinws.feed.embedded import EmbeddedNatsError
    from odinws.lab.redelivery import Count, run

    pause = (seconds / 4, seconds / 4 + min(15.0, seconds / 2))

    def show(now: float, counts: list[Count]) -> None:
        received = ", ".join(f"{count.received:,}" for count in counts)
        click.echo(f"{now:.0f} s: received {received}", err=True)

    try:
        result = asyncio.run(run(rate=rate, seconds=seconds, pause=pause, progress=show))
    except EmbeddedNatsError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"published {result.published:,} in {seconds:g} s; paused from {pause[0]:g} to {pause[1]:g} s")
    click.echo("| consumer | received | per published message |")
    click.echo("|---|---|---|")
    for count in result.counts:
        more = " (stopped)" if count.stopped else ""
        click.echo(f"| {count.arm.name} | {count.received:,}{more} | {result.amplification(count):,.3f} |")
    if out is not None:
        from odinws.lab.picture import draw

        draw(result, Path(out))


@lab.command()
def cluster() -> None:
    """Three nats-servers, two servers and haproxy on this machine, until Ctrl-C."""
    from odinws.feed.embedded import EmbeddedNatsError
    from odinws.lab.cluster import Cluster, ClusterError

    click.echo("starting three nats-servers, two servers and haproxy", err=True)
    try:
        with Cluster() as running:
            click.echo(f"  page        http://127.0.0.1:{running.port}/")
            click.echo(f"  websocket   ws://127.0.0.1:{running.port}/ws")
            for number, host in enumerate(running.hosts):
                click.echo(
                    f"  host {number}      {host.http}/   admin {host.admin}/   kill {host.pid} drains it"
                )
            for number, port in enumerate(running.node_ports):
                pid = running.parts[f"nats-{number}"].pid
                click.echo(f"  nats {number}      nats://127.0.0.1:{port}   pid {pid}")
            nats_url = running.nats_url.partition(",")[0]
            click.echo(f"  feed it     odinws publish --nats-url {nats_url}")
            click.echo("  stop        Ctrl-C")
            signal.sigwait({signal.SIGINT, signal.SIGTERM})
    except (ClusterError, EmbeddedNatsError) as error:
        raise click.ClickException(str(error)) from None
