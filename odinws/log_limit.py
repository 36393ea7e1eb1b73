"""A log handler that does not let one line drown the others: what repeats becomes a few lines and a count."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

import structlog

LINES = 20  # of one kind in one window
WINDOW_SECONDS = 10.0
_KINDS = 256

_Key = tuple[str, int, str]


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
        self._kinds: dict[_Key, _Kind] = {}
        self._due = float("inf")

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or count it."""
        if logging.getLogger().level <= logging.DEBUG:
            super().emit(record)
            return
        now = time.monotonic()
        if now >= self._due or len(self._kinds) >= _KINDS:
            self.report(now if len(self._kinds) < _KINDS else float("inf"))
        key = (record.name, record.levelno, _text(record))
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = _Kind(now + WINDOW_SECONDS)
            self._due = min(self._due, kind.until)
        if kind.lines >= LINES:
            kind.suppressed += 1
            return
        kind.lines += 1
        super().emit(record)

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


def _text(record: logging.LogRecord) -> str:
    """What a line says before anything is filled in; structlog's are dictionaries until they are written."""
    message: Any = record.msg
    return str(message.get("event", "")) if isinstance(message, dict) else str(message)
