"""What may be asked under `/debug`, with which options, within which bounds. Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, NamedTuple

ALL = "all"


class DebugError(Exception):
    """A request that can't be carried out.

    Attributes:
        status: of the HTTP answer.
        code: one word for programs.
        message: what is wrong, what is allowed, what to do.
        retry_after_seconds: when to try again; None: never as it is.
    """

    def __init__(
        self, status: int, code: str, message: str, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_seconds = retry_after_seconds


class Option(NamedTuple):
    """A number with bounds, or one of some words.

    Attributes:
        about: what it is, with its unit.
        default: taken when it is not given; its type is that of the option.
        low: least value; None for words.
        high: greatest.
        words: what is allowed; empty for numbers.
    """

    about: str
    default: float | int | str
    low: float | None = None
    high: float | None = None
    words: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        """The bounds in words."""
        if self.words:
            return f"one of {', '.join(self.words)}"
        kind = "a whole number" if isinstance(self.default, int) else "a number"
        return f"{kind} from {self.low:g} to {self.high:g}"

    def read(self, name: str, text: str) -> float | int | str:
        """The value of an option.

        Raises:
            DebugError: 400, it is not allowed.
        """
        if self.words:
            if text in self.words:
                return text
        else:
            with contextlib.suppress(ValueError):
                value = int(text) if isinstance(self.default, int) else float(text)
                if (self.low or 0) <= value <= (self.high or 0):
                    return value
        raise DebugError(400, "bad_option", f"{name} is {text!r}, it must be {self.allowed}")


class Verb(NamedTuple):
    """One thing that may be asked.

    Attributes:
        about: what comes back.
        options: besides `worker` and `format`.
        formats: what the answer may be; the first is the default.
        exclusive: it costs enough that one at a time runs in the whole server.
    """

    about: str
    options: Mapping[str, Option]
    formats: tuple[str, ...] = ("json", "html")
    exclusive: bool = False


def _limit(default: int, high: int) -> Option:
    return Option("how many at most", default, 1, high)


_WINDOW = Option("how long to watch, in seconds; 0: since the worker's start", 0.0, 0.0, 60.0)
SORTS = ("age", "channels", "outbox", "lag", "silent", "rtt")

VERBS: Mapping[str, Verb] = {
    "profile": Verb(
        "where CPU time goes, sampled",
        {
            "seconds": Option("how long to sample, in seconds", 30.0, 0.1, 120.0),
            "hz": Option("samples per second of CPU time", 99, 1, 250),
        },
        ("speedscope", "collapsed", "html", "json"),
        exclusive=True,
    ),
    "heap": Verb(
        "what is allocated and stays, by place, and how it grew",
        {
            "seconds": Option("how long to trace, in seconds", 20.0, 1.0, 120.0),
            "frames": Option("callers kept per allocation; each makes it dearer", 5, 1, 25),
            "limit": _limit(20, 200),
        },
        exclusive=True,
    ),
    "greenlets": Verb("who runs and where each waits, counted by place", {"limit": _limit(50, 500)}),
    "locks": Verb("the lock of each shard: taken, waited for, held", {"seconds": _WINDOW}),
    "gc": Verb("the garbage collector: counts, pauses, generations", {"seconds": _WINDOW}),
    "connections": Verb(
        "the clients, sorted",
        {"sort": Option("what comes first", "age", words=SORTS), "limit": _limit(100, 1000)},
    ),
    "shards": Verb("connections, channels and subscriptions of each shard", {}),
    "slow": Verb("the slowest fan-out passes of the last minutes", {"limit": _limit(20, 32)}),
}


class Request(NamedTuple):
    """What was asked.

    Attributes:
        verb: one of `VERBS`.
        options: all of its options, with their defaults.
        worker: process id, or None for all.
        form: one of the verb's formats.
    """

    verb: str
    options: dict[str, Any]
    worker: int | None
    form: str


def read(name: str, given: Mapping[str, str]) -> Request:
    """Read a request.

    Args:
        name: the verb.
        given: its parameters.

    Raises:
        DebugError: 404 for an unknown verb; 400 for a parameter that is unknown or out of bounds.
    """
    verb = VERBS.get(name)
    if verb is None:
        raise DebugError(404, "not_found", f"no such view {name!r}, there are {', '.join(VERBS)}")
    common = {
        "worker": Option("process id of a worker, or all", ALL),
        "format": Option("form of the answer", verb.formats[0], words=verb.formats),
    }
    unknown = sorted(set(given) - set(common) - set(verb.options))
    if unknown:
        allowed = ", ".join((*verb.options, *common))
        raise DebugError(400, "unknown_option", f"{name} knows no {unknown[0]!r}, it takes {allowed}")
    worker = given.get("worker", ALL)
    if worker != ALL and not worker.isdecimal():
        raise DebugError(400, "bad_option", f"worker is {worker!r}, it must be a process id or {ALL}")
    options = {
        key: option.read(key, given[key]) if key in given else option.default
        for key, option in verb.options.items()
    }
    form = given.get("format", verb.formats[0])
    common["format"].read("format", form)
    return Request(name, options, None if worker == ALL else int(worker), form)
