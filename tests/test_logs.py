"""`odinws.logs`, each in a process of its own, because logging is set up once for all."""

from __future__ import annotations

import itertools
import json
import logging.config
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws import logs
from odinws.logs import OncePerSecond

ROOT = Path(__file__).parents[1]

PROGRAM = """
import logging
import structlog
log = structlog.get_logger("odinws.test")  # made before the set-up, as in every module
from odinws import logs
logs.configure({level!r}, {form!r})
plain = logging.getLogger("gunicorn.error")
log.debug("a debug", n=1)
log.info("an info", client="c-1", peer="::1")
log.warning("a warning", text='new\\nline "quoted" ü \\u2028')
plain.info("plain %s", "words")
logging.getLogger("geventwebsocket").warning("per request")
logging.getLogger("nats").error("connection refused")
logging.getLogger("some.library").error("library")
try:
    secret = "hunter2"
    raise KeyError("broken")
except KeyError:
    log.exception("failed", client="c-2")
    plain.exception("plain failed")
"""


def run(level: str, form: str) -> tuple[str, str]:
    """What a process with this set-up writes to stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(level=level, form=form)],
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=60,
        encoding="utf-8",
        env={"PYTHONIOENCODING": "utf-8", "PATH": ""},
    )
    return done.stdout, done.stderr


def test_json() -> None:
    """One object per line, ours and the libraries' alike, with time, level, logger and event."""
    stdout, stderr = run("debug", "json")
    assert stdout == ""
    lines: list[dict[str, Any]] = [json.loads(line) for line in stderr.split("\n") if line]
    assert [line["message"] for line in lines] == [
        "a debug",
        "an info",
        "a warning",
        "plain words",
        "library",
        "failed",
        "plain failed",
    ]
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["timestamp"])
        assert {"level", "logger"} <= set(line)
    assert [line["level"] for line in lines] == [
        "debug",
        "info",
        "warning",
        "info",
        "error",
        "error",
        "error",
    ]
    assert lines[1] | {"timestamp": ""} == {
        "message": "an info",
        "client": "c-1",
        "peer": "::1",
        "level": "info",
        "logger": "odinws.test",
        "timestamp": "",
    }
    assert lines[2]["text"] == 'new\nline "quoted" ü \u2028'
    for line in lines[-2:]:
        assert "KeyError: 'broken'" in line["exception"]
        assert "hunter2" not in json.dumps(line)


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_token_gets_out(form: str) -> None:
    """Whoever logs one, in a field, in the words, or in a traceback."""
    program = f"""
import logging, structlog
from odinws import logs
logs.configure("info", {form!r})
token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"
structlog.get_logger("a").info("asked", target="/ws?token=" + token)
logging.getLogger("b").error("got %s", token)
try:
    raise ValueError(token)
except ValueError:
    structlog.get_logger("a").exception("failed")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True, text=True
    )
    assert done.stderr.count("***") >= 3
    assert "eyJ" not in done.stderr


@pytest.mark.parametrize("form", ["json", "text"])
def test_the_access_log(form: str) -> None:
    """On stdout, whatever the level; every line of it, as gunicorn words it, and without tokens."""
    program = f"""
import logging
from odinws import logs
logs.configure("error", {form!r}, access=True)
for _ in range(50):
    logging.getLogger("gunicorn.access").info('%(h)s - "%(r)s" %(s)s', {{
        "h": "::1", "s": 101, "r": "GET /ws?token=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln HTTP/1.1"}})
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True, text=True
    )
    words = '::1 - "GET /ws?token=*** HTTP/1.1" 101'
    lines = done.stdout.splitlines()
    told = [json.loads(line)["message"] for line in lines] if form == "json" else lines
    assert told == [words] * 50
    assert done.stderr == ""


def test_text() -> None:
    """Lines for people, without colours when nobody sees them; what clients sent is not in a traceback."""
    stdout, stderr = run("info", "text")
    assert stdout == ""
    assert "a debug" not in stderr
    assert re.search(r"\[info +\] an info +\[odinws.test\] client=c-1 peer=::1", stderr)
    assert re.search(r"\[info +\] plain words", stderr)
    assert "KeyError: 'broken'" in stderr
    assert "per request" not in stderr
    assert "connection refused" not in stderr
    assert "\x1b" not in stderr
    assert stderr.count("hunter2") == 0


@pytest.mark.parametrize(("level", "count"), [("debug", 7), ("info", 6), ("warning", 4), ("error", 3)])
def test_levels(level: str, count: int) -> None:
    """What is below the level is not written, whoever says it."""
    assert len(run(level, "json")[1].splitlines()) == count


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_config_is_a_valid_dict_config(level: str, form: str) -> None:
    """gunicorn is handed the same value: it must be one that the standard library takes."""
    config = logs.config(level, form)
    assert config["root"] == {"handlers": ["stderr"], "level": level.upper()}
    assert config["disable_existing_loggers"] is False
    configurator = logging.config.DictConfigurator(config)
    formatter = configurator.configure_formatter(dict(config["formatters"]["odinws"]))
    assert isinstance(formatter, logging.Formatter)


# -- what strangers say ----------------------------------------------------------------------------

TOKEN = ".".join(("eyJhbGciOiJIUzI1NiJ9", "eyJzdWIiOiJ4In0", "c2lnbmF0dXJl"))
ODD = st.text(st.characters(codec="utf-8", categories=("Cc", "Cf", "Zl", "Zp", "Zs", "Lu", "Nd", "Po")))
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def rendered(form: str, formatter: str, record: logging.LogRecord) -> str:
    """A line as it would be written."""
    configurator = logging.config.DictConfigurator(logs.config("info", form))
    made: logging.Formatter = configurator.configure_formatter(
        dict(configurator.config["formatters"][formatter])
    )
    return made.format(record)


def line(said: str, *, raised: str | None = None, formatter: str = "odinws", form: str = "text") -> str:
    """What is written of a stranger's words, in the event, in fields, and in an exception."""
    event: Any = {"event": said, "origin": said, "listed": [said, said.encode()]}
    exc_info = None
    if raised is not None:
        try:
            raise ValueError(raised)
        except ValueError:
            exc_info = sys.exc_info()
    record = logging.LogRecord("odinws.test", logging.INFO, "", 0, event, None, exc_info)
    record._logger, record._name = None, "info"
    event["_record"] = record
    return rendered(form, formatter, record)


@pytest.mark.parametrize("formatter", ["odinws", "access"])
@given(ODD, ODD)
@example("\x1b]0;owned\x07", "\r\n2026-12-01T10:00:00Z [info     ] forged")
@example("a\u202eb\ud800".encode("utf-8", "replace").decode(), "\x9b31m\x7f\x85")
def test_no_line_can_be_forged(formatter: str, said: str, raised: str) -> None:
    """Nothing is written that ends a line or commands a terminal; what belongs to a line is indented."""
    first, *more = line(said, raised=raised, formatter=formatter).split("\n")
    assert not CONTROL.search(first)
    assert all(each.startswith("    ") and not CONTROL.search(each) for each in more)
    assert not CONTROL.search(line(said, raised=raised, formatter=formatter, form="json"))


@pytest.mark.parametrize("form", ["json", "text"])
@given(ODD, ODD, st.sampled_from(["", "_", "-", "x", "bearer.", "token="]))
def test_no_token_is_left(form: str, before: str, behind: str, joint: str) -> None:
    """Whatever is around it."""
    written = line(before + joint + TOKEN + behind, raised=joint + TOKEN + behind, form=form)
    assert not any(part in written for part in TOKEN.split("."))


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize(
    "unit", ["-eyJ", "eyJ", "eyJ.", "eyJaaaaaaaa", "eyJaaaaaaaa.", TOKEN + " ", "\x1b", ";", "%", "a", "\n"]
)
def test_the_time_for_a_line_is_bounded(form: str, unit: str) -> None:
    """Also of a megabyte, and what is written of it is short."""
    said = unit * (1_000_000 // len(unit))
    began = time.process_time()
    written = line(said, raised=said, form=form)
    assert time.process_time() - began < 0.5  # most of it to print the exception
    assert len(written) < 150_000


@pytest.mark.parametrize("unit", ["-eyJ", "eyJ", "eyJ.", "eyJaaaaaaaa.", "a.", TOKEN + " "])
def test_to_look_for_tokens_takes_time_in_proportion(unit: str) -> None:
    """A line of 10 times the length, 10 times the time, with room for a machine that is busy."""

    def seconds(size: int) -> float:
        text, took = unit * (size // len(unit)), []
        for _ in range(5):
            began = time.process_time()  # of this process alone, however busy the machine is
            logs._finish(None, "", text)
            took.append(time.process_time() - began)
        return min(took)

    assert seconds(400_000) < 50 * seconds(40_000) + 0.001


def test_what_is_long_is_cut() -> None:
    assert logs.clip("x" * 200) == "x" * 200
    assert logs.clip("x" * 1234) == "x" * 200 + "... (1034 more)"
    assert len(line("x" * 100_000)) < 7000


# -- what repeats ----------------------------------------------------------------------------------


def test_limit() -> None:
    """One line per kind and second; the next one says how many were passed over meanwhile."""
    limit = OncePerSecond()
    assert [limit.suppressed("a", 10.0 + at / 10) for at in range(12)] == [0, *[None] * 9, 9, None]
    assert limit.suppressed("a", 12.5) == 1
    assert limit.suppressed("a", 13.6) == 0


def test_kinds_do_not_count_for_each_other() -> None:
    """Each has its own second."""
    limit = OncePerSecond()
    assert [limit.suppressed(kind, 5.0) for kind in "abab"] == [0, 0, None, None]
    assert limit.suppressed("a", 5.99) is None
    assert [limit.suppressed(kind, 6.0) for kind in "ab"] == [2, 1]


def test_the_first_line_is_logged_at_any_time() -> None:
    """Also when the clock has just begun."""
    assert OncePerSecond().suppressed("a", 0.0) == 0
    assert OncePerSecond().suppressed("a", -5.0) == 0


def test_kinds_without_end_are_forgotten() -> None:
    """It keeps 64 of them; one more, and each may be logged once more."""
    limit = OncePerSecond()
    for number in range(64):
        assert limit.suppressed(f"kind {number}", 1.0) == 0
    assert limit.suppressed("kind 0", 1.0) is None
    assert limit.suppressed("one more", 1.0) == 0
    assert limit.suppressed("kind 0", 1.0) == 0, "what was passed over before is forgotten"
    assert len(limit._last) <= 64


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.0, 0.7)), max_size=60))
def test_every_line_is_logged_or_counted(events: list[tuple[str, float]]) -> None:
    """What was logged, what the lines say was passed over, and what no line has said yet, make all."""
    limit, now = OncePerSecond(), 0.0
    logged: dict[str, list[float]] = {}
    told = 0
    for kind, pause in events:
        now += pause
        more = limit.suppressed(kind, now)
        if more is not None:
            told += more + 1
            logged.setdefault(kind, []).append(now)
    assert told + sum(limit._suppressed.values()) == len(events)
    for times in logged.values():
        assert all(later - earlier >= 1.0 for earlier, later in itertools.pairwise(times))


def test_facts_of_a_process() -> None:
    """Each line carries them; what a line says itself by that name stays; the next ones replace them."""
    logs.always({"strategy": "sync-dict", "variant": "a"})
    try:
        assert logs._add_facts(None, "", {"variant": "b"}) == {"variant": "b", "strategy": "sync-dict"}
        logs.always({"strategy": "actor"})
        assert logs._add_facts(None, "", {}) == {"strategy": "actor"}
    finally:
        logs.always({})
