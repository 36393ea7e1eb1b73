"""The options of the swarms, for Locust's command line and its web page."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from typing import Any, TypeVar

from locust import events

_N = TypeVar("_N", int, float)


def number(text: str) -> float:
    """A number that is not negative.

    Raises:
        ArgumentTypeError: it is another, or none.
    """
    return _within(text, float, 0, 1e9, "a number from 0 on")


def share(text: str) -> float:
    """A number from 0 to 1.

    Raises:
        ArgumentTypeError: it is another, or none.
    """
    return _within(text, float, 0, 1, "a number from 0 to 1")


def whole(text: str) -> int:
    """A whole number from 1 on.

    Raises:
        ArgumentTypeError: it is another, or none.
    """
    return _within(text, int, 1, 10**9, "a whole number from 1 on")


def _within(text: str, kind: type[_N], low: float, high: float, what: str) -> _N:
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not low <= value <= high:
        raise ArgumentTypeError(f"{text!r} must be {what}")
    return value


_OPTIONS: tuple[tuple[str, Any, Any, str], ...] = (
    ("connections", whole, 500, "connections of all users together"),
    ("ramp", number, 100.0, "connections per second until all are there; 0: at once"),
    ("churn", number, 0.0, "connections per second that leave and come back"),
    ("slow", share, 0.0, "share of the clients that read slowly, 0 to 1"),
    ("slow-bytes", number, 500.0, "bytes per second that a slow client reads"),
    ("probes", number, 0.0, "connections per second that only connect and subscribe"),
    ("storm-every", number, 0.0, "seconds between storms, which cut connections; 0: none"),
    ("storm-share", share, 1.0, "share of the connections that a storm cuts, 0 to 1"),
    ("sustain", number, 60.0, "capacity: seconds that all connections stay"),
    ("timeout", number, 10.0, "seconds until a connection must be subscribed"),
    ("table", number, 0.0, "seconds between the lines of the table; 0: none"),
    ("seed", int, 1, "of what is random"),
    ("record", str, "", "file for one JSON line per second"),
)


def register(**defaults: Any) -> None:
    """Add the options to Locust's.

    Args:
        defaults: of a scenario, by the option's name.
    """

    @events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
    def add(parser: ArgumentParser) -> None:
        parser.add_argument(
            "--odin-mode",
            choices=("all", "single", "random"),
            default="all",
            help="channels of each client: all five tokens, a single one, three at random",
        )
        parser.add_argument(
            "--odin-compression",
            action="store_true",
            help="offer compression; to inflate is work for the swarm",
        )
        for name, kind, default, text in _OPTIONS:
            value = defaults.get(name.replace("-", "_"), default)
            parser.add_argument(f"--odin-{name}", type=kind, default=value, help=f"{text} ({value})")
