"""The options of the swarms, for Locust's command line and its web page."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from odinws.swarm.formats import FORMATS


def _within(kind: Callable[[str], float], low: float, high: float, what: str) -> Callable[[str], Any]:
    """The type of an option: a number within bounds. Raises ArgumentTypeError for anything else."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise ArgumentTypeError(f"{text!r} must be {what}")
        return value

    return parse


CHANNELS = tuple(f"token.{token}" for token in ("BTC", "ETH", "SOL", "ODIN", "DOGE"))


def channels(text: str) -> tuple[str, ...]:
    """The names in a list. Raises ArgumentTypeError: there are none, or one is twice."""
    found = tuple(name.strip() for name in text.split(","))
    if not all(found) or len(set(found)) < len(found):
        raise ArgumentTypeError(f"{text!r} must be names of channels, each once, with commas between")
    return found


number = _within(float, 0, 1e9, "a number from 0 on")
share = _within(float, 0, 1, "a number from 0 to 1")
whole = _within(int, 1, 10**9, "a whole number from 1 on")

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
    ("admin", str, "http://127.0.0.1:3005", "the server's admin plane, which the table's CPU comes from"),
    ("seed", int, 1, "of what is random"),
    ("record", str, "", "file for one JSON line per second"),
)


def add(parser: ArgumentParser, defaults: Mapping[str, Any]) -> None:
    """Add the options to Locust's, with a scenario's own defaults."""
    text = "what clients may subscribe to, with commas between (the tokens of the predecessor's test)"
    parser.add_argument("--odin-channels", type=channels, default=CHANNELS, help=text)
    text = "channels of each client: all of these, a single one, three at random"
    parser.add_argument("--odin-mode", choices=("all", "single", "random"), default="all", help=text)
    text = "what clients speak: the native format, Centrifugo's in JSON or Protobuf, Server-Sent Events"
    parser.add_argument("--odin-format", choices=tuple(FORMATS), default="native", help=text)
    text = "offer compression; to inflate is work for the swarm"
    parser.add_argument("--odin-compression", action="store_true", help=text)
    for name, kind, usual, text in _OPTIONS:
        value = defaults.get(name.replace("-", "_"), usual)
        parser.add_argument(f"--odin-{name}", type=kind, default=value, help=f"{text} ({value})")


def record_problem(record: str) -> str:
    """What is wrong with the path of the record; empty: nothing."""
    path = Path(record)
    if not record or (path.parent.is_dir() and not path.is_dir()):
        return ""
    return f"--odin-record {record!r} must be a file in a directory that exists"
