"""`odinws.logs`: a line repeated a thousand times becomes a few, with a count."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest
import structlog

from odinws import logs
from odinws.logs import LINES, WINDOW_SECONDS, RateLimitingHandler, is_suppressed, report_suppressed


class Clock:
    """Stands still until it is set."""

    now = 1000.0

    def monotonic(self) -> float:
        """As `time.monotonic`."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The handler's clock."""
    clock = Clock()
    monkeypatch.setattr(logs, "time", clock)
    return clock


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What the root logger writes."""
    stream = io.StringIO()
    handler = RateLimitingHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.KeyValueRenderer(key_order=["event"]),
            ]
        )
    )
    root = logging.getLogger()
    before, root.handlers, level = root.handlers, [handler], root.level
    root.setLevel(logging.INFO)
    configured = structlog.get_config()
    structlog.configure(
        processors=[structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    yield stream
    root.handlers = before
    root.setLevel(level)
    structlog.configure(**configured)


def test_a_thousand_lines_become_a_few(stream: io.StringIO, clock: Clock) -> None:
    """The first 20, and when the window has ended one that says how many more there were."""
    log = structlog.get_logger("some")
    for number in range(1000):
        log.warning("again", number=number)
    assert len(stream.getvalue().splitlines()) == LINES
    clock.now += WINDOW_SECONDS
    report_suppressed()
    assert stream.getvalue().splitlines()[LINES:] == [f"event='again' not_logged={1000 - LINES}"]
    report_suppressed()
    assert len(stream.getvalue().splitlines()) == LINES + 1


def test_other_lines_are_written(stream: io.StringIO) -> None:
    """Another text, level or logger is another kind; the arguments of a standard logger make none."""
    plain = logging.getLogger("plain")
    for number in range(100):
        plain.info("number %d", number)
    plain.warning("number %d", 7)
    logging.getLogger("other").info("number %d", 7)
    structlog.get_logger("plain").info("another")
    assert len(stream.getvalue().splitlines()) == LINES + 3


def test_any_line_reports_what_is_due(stream: io.StringIO, clock: Clock) -> None:
    """Without anybody's call, and in front of what comes now."""
    plain = logging.getLogger("plain")
    for _ in range(LINES + 5):
        plain.info("one")
    clock.now += WINDOW_SECONDS
    plain.info("two")
    assert stream.getvalue().splitlines()[LINES:] == ["event='one' not_logged=5", "event='two'"]


def test_the_end_reports_what_is_left(stream: io.StringIO) -> None:
    """Nothing is lost with the process."""
    for _ in range(LINES + 5):
        logging.getLogger("plain").info("one")
    logging.getLogger().handlers[0].close()
    assert stream.getvalue().splitlines()[LINES:] == ["event='one' not_logged=5"]


def test_kinds_are_bounded(stream: io.StringIO) -> None:
    """Texts without end, as no line of ours has, are written all the same."""
    for number in range(1000):
        logging.getLogger("plain").info(f"text {number}")
    assert len(stream.getvalue().splitlines()) == 1000
    handler = logging.getLogger().handlers[0]
    assert isinstance(handler, RateLimitingHandler)
    assert len(handler._kinds) <= 256


def test_who_asks_for_all_gets_all(stream: io.StringIO) -> None:
    """At level DEBUG nothing is counted instead of written."""
    logging.getLogger().setLevel(logging.DEBUG)
    for _ in range(100):
        logging.getLogger("plain").info("one")
    assert len(stream.getvalue().splitlines()) == 100


def test_a_line_that_would_not_be_written_need_not_be_made(stream: io.StringIO, clock: Clock) -> None:
    """The log is the same as if it had been made."""
    log = structlog.get_logger("some")
    for _ in range(1000):
        if not is_suppressed("some", logging.INFO, "again"):
            log.info("again")
    assert len(stream.getvalue().splitlines()) == LINES
    assert not is_suppressed("some", logging.INFO, "other")
    clock.now += WINDOW_SECONDS
    assert not is_suppressed("some", logging.INFO, "again")
    report_suppressed()
    assert stream.getvalue().splitlines()[LINES:] == [f"event='again' not_logged={1000 - LINES}"]


@pytest.mark.usefixtures("stream")
def test_what_is_suppressed_depends_on_the_level() -> None:
    """Below the level of the root logger all, at DEBUG nothing."""
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    assert is_suppressed("some", logging.INFO, "text")
    root.setLevel(logging.DEBUG)
    assert not any(is_suppressed("some", logging.INFO, "text") for _ in range(100))
