"""Logging: structlog over the standard library, so that gunicorn's lines come in the same form.

Much of what is logged was said by strangers. So whatever is written is of bounded length, has no token in it,
and no character by which it could pass for another line or command a terminal.
"""

from __future__ import annotations

import logging
import logging.config
import re
import sys
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import structlog

SAID_CHARACTERS = 200  # of what a stranger says
_VALUE_CHARACTERS = 2000  # of any value
_TRACEBACK_CHARACTERS = 20_000
_SCALARS = (int, float, bool, type(None))
LINES = 20  # of one kind in one window
WINDOW_SECONDS = 10.0
_KINDS = 256
_LINE_SECONDS = 1.0  # between two lines of a kind, of `OncePerSecond`
_LINE_KINDS = 64

_always: dict[str, str] = {}


def always(facts: Mapping[str, str]) -> None:
    """Have each further line of this process carry `facts`, unless it says something itself by that name."""
    _always.clear()
    _always.update(facts)


def _add_facts(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in _always.items():
        event.setdefault(name, value)
    return event


_SHARED: list[Any] = [
    _add_facts,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
]

# RFC 7515: base64url of `{"`, and what may be part of a token. Possessive: no character is looked at twice.
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{8,}+(?:\.[A-Za-z0-9_-]*+)*+")


def clip(text: str, limit: int = SAID_CHARACTERS) -> str:
    """The beginning of a text, and how much was cut."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text) - limit} more)"


def escape(text: str) -> str:
    """A text with all that can't be printed as Python writes it in a string: `\\n`, `\\x1b`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class _Escaped:
    """A value that is shown as it is."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _clip_values(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if isinstance(value, str):
            limit = _TRACEBACK_CHARACTERS if name in ("exception", "stack") else _VALUE_CHARACTERS
            event[name] = clip(value, limit)
        elif value.__class__ not in _SCALARS and len(shown := repr(value)) > _VALUE_CHARACTERS:
            event[name] = clip(shown, _VALUE_CHARACTERS)
    return event


def _escape_values(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """For a text log. Only a traceback has several lines, of which all but the first are indented."""
    for name, value in event.items():
        if name in ("exception", "stack"):
            event[name] = "\n".join(f"    {escape(line)}" for line in value.split("\n"))
        elif not isinstance(value, str):
            if value.__class__ not in _SCALARS:
                event[name] = _Escaped(escape(repr(value)))
        elif not value.isprintable():
            event[name] = escape(value) if name == "event" else _Escaped(f"'{escape(value)}'")
    return event


def _finish(_: Any, __: str, line: str) -> str:
    """No token gets out, also not in a traceback. JSON has escaped all other control characters already."""
    return _JWT.sub("***", line).replace("\x7f", "\\u007f")


def _only_the_words(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
    return str(event["event"])


def config(level: str, form: str, *, access: bool = False) -> dict[str, Any]:
    """A `logging.config.dictConfig` for the server and for gunicorn.

    Args:
        level: least severity, as in `LOG_LEVEL`.
        form: "json" (one object per line) or "text" (coloured on a terminal).
        access: write gunicorn's access log, a line per request, to stdout; as text just as gunicorn words it.
    """
    last: list[Any]
    if form == "json":
        last = [
            _clip_values,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(),
        ]
    else:
        # The plain form: a rich one shows local variables, and with them what clients sent.
        plain = structlog.dev.plain_traceback
        colours = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
        last = [_clip_values, _escape_values, colours]

    def formatter(*last: Any) -> dict[str, Any]:
        first = [
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
        ]
        return {
            "()": structlog.stdlib.ProcessorFormatter,
            "foreign_pre_chain": _SHARED,
            "processors": [*first, *last, _finish],
        }

    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "odinws": formatter(*last),
            "access": formatter(*last[:-1], last[-1] if form == "json" else _only_the_words),
        },
        "handlers": {
            "stderr": {
                "class": "odinws.logs.RateLimitingHandler",
                "formatter": "odinws",
                "stream": "ext://sys.stderr",
            },
            "access": {
                "class": "logging.StreamHandler",
                "formatter": "access",
                "stream": "ext://sys.stdout",
            },
        },
        "root": {"handlers": ["stderr"], "level": level.upper()},
        "loggers": {
            "gunicorn.error": {"level": level.upper(), "propagate": True, "handlers": []},
            # Per request; what matters of it is counted.
            "gunicorn.access": {
                "level": "INFO" if access else "WARNING",
                "propagate": False,
                "handlers": ["access"],
            },
            "geventwebsocket": {"level": "ERROR"},
            # Its connection attempts are reported by the feed.
            "nats": {"level": "CRITICAL"},
        },
    }


def configure(level: str, form: str, *, access: bool = False) -> None:
    """Set up logging of this process, as `config` says."""
    # No line shows these, and to find them costs more than to write it: a look at `threading.current_thread`
    # makes an object for each greenlet.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # as the standard library's documentation advises
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    logging.config.dictConfig(config(level, form, access=access))


class OncePerSecond:
    """Keeps what repeats from filling the log: one line per kind and second.

    Kinds are few and known: above 64 it forgets all, and each may be logged once more.
    """

    def __init__(self) -> None:
        self._last: dict[str, float] = {}
        self._suppressed: dict[str, int] = {}

    def suppressed(self, kind: str, now: float) -> int | None:
        """How many were not logged since the last line of this kind; None: this one is not logged either.

        Args:
            now: monotonic seconds.
        """
        last = self._last.get(kind)
        if last is not None and now - last < _LINE_SECONDS:
            self._suppressed[kind] = self._suppressed.get(kind, 0) + 1
            return None
        if last is None and len(self._last) >= _LINE_KINDS:
            self._last.clear()
            self._suppressed.clear()
        self._last[kind] = now
        return self._suppressed.pop(kind, 0)


@dataclass(slots=True)
class _Kind:
    until: float  # monotonic seconds: the end of its window
    lines: int = 0
    suppressed: int = 0


class RateLimitingHandler(logging.StreamHandler[Any]):
    """Writes at most 20 lines of a kind in 10 s; the next one of it says how many were not written.

    A kind is a logger, a level and the text before anything is filled in. Kinds are few; above 256 all
    are reported and forgotten. At level DEBUG of the root logger everything is written: who asks for all
    gets all.
    """

    def __init__(self, stream: Any = None) -> None:
        super().__init__(stream)
        self._kinds: dict[tuple[str, int, str], _Kind] = {}
        self._due = float("inf")

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or count it."""
        if logging.getLogger().level <= logging.DEBUG:
            super().emit(record)
            return
        key = (record.name, record.levelno, _text(record))
        if self.suppress(*key):
            return
        now = time.monotonic()
        if now >= self._due or len(self._kinds) >= _KINDS:
            self.report(now if len(self._kinds) < _KINDS else float("inf"))
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = _Kind(now + WINDOW_SECONDS)
            self._due = min(self._due, kind.until)
        kind.lines += 1
        super().emit(record)

    def suppress(self, name: str, level: int, text: str) -> bool:
        """Whether a line of this kind is not to be written now; then it is counted."""
        kind = self._kinds.get((name, level, text))
        if kind is None or kind.lines < LINES or time.monotonic() >= kind.until:
            return False
        kind.suppressed += 1
        return True

    def report(self, now: float) -> None:
        """Say what was not written in windows that have ended.

        Args:
            now: monotonic seconds; infinity ends all windows.
        """
        ended = [key for key, kind in self._kinds.items() if kind.until <= now]
        over = [(key, self._kinds.pop(key)) for key in ended]
        self._due = min((kind.until for kind in self._kinds.values()), default=float("inf"))
        for (name, level, text), kind in over:
            if kind.suppressed:
                structlog.get_logger(name).log(level, text, not_logged=kind.suppressed)

    def close(self) -> None:
        """Say what is left to say."""
        self.acquire()
        try:
            self.report(float("inf"))
        finally:
            self.release()
        super().close()


def report_suppressed() -> None:
    """Say what was not written a while ago. To be called now and then, for lines that do not come again."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, RateLimitingHandler):
            handler.acquire()
            try:
                handler.report(time.monotonic())
            finally:
                handler.release()


def is_suppressed(name: str, level: int, text: str) -> bool:
    """Whether a line would not be written. To be asked before a line that many clients cause is made.

    A line that is not made for this reason is counted, as one that was made would be.

    Args:
        name: of the logger.
        text: before anything is filled in.
    """
    root = logging.getLogger()
    for handler in root.handlers:
        if isinstance(handler, RateLimitingHandler):
            return level < root.level or (root.level > logging.DEBUG and handler.suppress(name, level, text))
    return False


def _text(record: logging.LogRecord) -> str:
    """What a line says before anything is filled in; structlog's are dictionaries until they are written."""
    message: Any = record.msg
    return str(message.get("event", "")) if isinstance(message, dict) else str(message)
