"""Logging: structlog over the standard library, so that gunicorn's lines come in the same form."""

from __future__ import annotations

import logging.config
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

_SELDOM_SECONDS = 1.0
_SELDOM_KINDS = 64

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

# RFC 7515: base64url of `{"`, and two dots.
_JWT = re.compile(r"\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")


def _hide_tokens(_: Any, __: str, line: str) -> str:
    """Whoever logs what a client sent: no token gets out, also not in a traceback."""
    return _JWT.sub("***", line)


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
            structlog.processors.format_exc_info,
            structlog.processors.EventRenamer("message"),
            structlog.processors.JSONRenderer(),
        ]
    else:
        # The plain form: a rich one shows local variables, and with them what clients sent.
        plain = structlog.dev.plain_traceback
        last = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]

    def formatter(*last: Any) -> dict[str, Any]:
        first = structlog.stdlib.ProcessorFormatter.remove_processors_meta
        return {
            "()": structlog.stdlib.ProcessorFormatter,
            "foreign_pre_chain": _SHARED,
            "processors": [first, *last, _hide_tokens],
        }

    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "odinws": formatter(*last),
            "access": formatter(*(last if form == "json" else [_only_the_words])),
        },
        "handlers": {
            "stderr": {
                "class": "odinws.log_limit.RateLimitingHandler",
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


class Seldom:
    """Keeps what repeats from filling the log: one line per kind and second.

    Kinds are few and known: above 64 it forgets all, and each may be logged once more.
    """

    def __init__(self) -> None:
        self._last: dict[str, float] = {}
        self._passed_over: dict[str, int] = {}

    def passed_over(self, kind: str, now: float) -> int | None:
        """How many were not logged since the last line of this kind; None: this one is not logged either.

        Args:
            now: monotonic seconds.
        """
        last = self._last.get(kind)
        if last is not None and now - last < _SELDOM_SECONDS:
            self._passed_over[kind] = self._passed_over.get(kind, 0) + 1
            return None
        if last is None and len(self._last) >= _SELDOM_KINDS:
            self._last.clear()
            self._passed_over.clear()
        self._last[kind] = now
        return self._passed_over.pop(kind, 0)
