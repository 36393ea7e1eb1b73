"""`python -m odinws strategies …`: list, check, load."""

from __future__ import annotations

import importlib.util

import click

import strategies as registry
from odinws import strategy_check


@click.group("strategies")
def strategies() -> None:
    """The subscription registries there are, and whether one of your own keeps its promises."""


@strategies.command("list")
def list_() -> None:
    """Names that WS_SHARD_STRATEGY takes, and what each stands for. Exit status 1: one can't be used."""
    failed = False
    for name in registry.names():
        try:
            strategy_check.check(name)
            made = registry.find(name)
        except ValueError as error:
            failed = True
            click.echo(f"{name}: {error}")
        else:
            click.echo(f"{name}: {made.__module__}:{made.__qualname__}")
    if failed:
        raise click.exceptions.Exit(1)


@strategies.command()
@click.argument("name")
def load(name: str) -> None:
    """Import a strategy and make one, as a server does before it starts."""
    _load(name)


@strategies.command()
@click.argument("name")
@click.option(
    "--examples", default=100, show_default=True, type=click.IntRange(1, 100_000),
    help="Random histories in each configuration.",
)  # fmt: skip
def check(name: str, examples: int) -> None:
    """Hold a strategy to every promise; a broken one is told with the shortest history that shows it.

    Exit status 1: there is one.
    """
    if importlib.util.find_spec("hypothesis") is None:
        raise click.ClickException("hypothesis is not installed: pip install hypothesis")
    _load(name)
    from odinws.conformance import check as hold

    found = hold(registry.find(name), examples)
    for broken in found:
        click.echo(f"broken: {broken.promise}")
        click.echo(f"  configuration: {broken.arm}")
        click.echo(f"  problem: {broken.problem}")
        for number, step in enumerate(broken.history, 1):
            click.echo(f"  {number:>3} {step}")
    if found:
        click.echo(f"{name}: {len(found)} promises are broken")
        raise click.exceptions.Exit(1)
    click.echo(f"{name}: every promise is kept")


def _load(name: str) -> None:
    try:
        strategy_check.check(name)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
