"""What strangers say, where it is logged. An input is a text that a log line carries, in its words or beside.

A line is one line of bounded length, without a character that a terminal obeys, and without a token.
"""

from __future__ import annotations

import io
import logging
import logging.config
import re
from typing import Any

from odinws import logs
from odinws.access.credentials import redact

_TOKEN = re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{12,}\.[A-Za-z0-9_-]*")
_MAX_CHARACTERS = 20_000  # of a line, whose words are escaped
_FORMS = ("text", "json")


def _handler(form: str) -> logging.StreamHandler[io.StringIO]:
    made: Any = logging.config.DictConfigurator(logs.config("info", form))
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(made.configure_formatter(made.config["formatters"]["odinws"]))
    return handler


_handlers = {form: _handler(form) for form in _FORMS}
_CONTROLS = {chr(code) for code in (*range(32), 127, *range(128, 160))}


def check(data: bytes) -> str:
    """Log it in every form."""
    text = data.decode("latin-1")
    for form in _FORMS:
        for line in (
            _logged(form, {"event": "said", "what": text}),
            _logged(form, f"Invalid request: {text}"),
        ):
            assert not set(line) & _CONTROLS, f"{line!r} has control characters"
            for token in _TOKEN.findall(text):
                assert token not in line, f"{line!r} has {token!r}"
        assert len(_logged(form, {"event": "said", "what": text * 16})) <= _MAX_CHARACTERS
    return "plain" if text.isprintable() else "escaped"


def read(data: bytes) -> int:
    """What our code does with it."""
    text = data.decode("latin-1")
    redact(f"GET /?{text} HTTP/1.1")
    for form in _FORMS:
        _logged(form, {"event": "said", "what": text})
        _logged(form, f"Invalid request: {text}")
    return 0


def _logged(form: str, message: Any) -> str:
    handler = _handlers[form]
    record = logging.LogRecord("odinws.test", logging.WARNING, "", 0, message, None, None)
    if isinstance(message, dict):  # as structlog leaves it for a formatter
        record._logger, record._name = None, "warning"
    return handler.format(record)
