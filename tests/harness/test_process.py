"""A process that we run: its start, its log, its end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from odinws.harness.process import Process, ProcessError
from tests.nats import alive


def python(code: str, log: Path, *, piped: bool = False) -> Process:
    """A process that runs Python code."""
    return Process((sys.executable, "-uc", code), log, piped=piped)


WAITS = "import time; print('up\\n', end=''); time.sleep(600)"  # one write: a reader sees the whole line
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(600)"
FORKS = "import os, time; child = os.fork(); child and print(child, flush=True); time.sleep(600)"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_a_process_that_ends_by_itself(log: Path) -> None:
    """Its status, and its last words in one line."""
    process = python("print('a'); print(); print('b'); print('c'); print('d'); exit(3)", log)
    assert (process.pid, process.status, process.log()) == (0, None, "")
    assert process.start().wait() == 3
    assert process.exit_summary() == "ended with status 3: b | c | d"
    with pytest.raises(ProcessError, match=r"ended with status 3: b \| c \| d"):
        process.wait_until(lambda: False, 60, "ready")
    process.end()


def test_a_process_that_said_nothing_and_was_killed(log: Path) -> None:
    """The summary names the signal."""
    process = python("import time; time.sleep(600)", log).start()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.exit_summary() == "was killed by SIGKILL: it said nothing"


def test_there_is_no_such_program(log: Path) -> None:
    """The error names it; the end does nothing."""
    process = Process(("/nowhere/server",), log)
    with pytest.raises(ProcessError, match="cannot run /nowhere/server: No such file"):
        process.start()
    process.end()


def test_its_environment_and_directory(tmp_path: Path) -> None:
    """All it has is what it is given."""
    code = "import os; print(os.environ.get('GIVEN'), os.environ.get('HOME'), os.getcwd())"
    process = Process(
        (sys.executable, "-c", code), tmp_path / "log", environ={"GIVEN": "1"}, directory=tmp_path
    )
    process.start().wait()
    assert process.log() == f"1 None {tmp_path}\n"


def test_waiting_for_what_does_not_come(log: Path) -> None:
    """The error says what, and what it said meanwhile."""
    with python(WAITS, log) as process:
        assert process.wait_until(process.log, 60, "up") == "up\n"
        with pytest.raises(ProcessError, match="not ready in time: up"):
            process.wait_until(lambda: False, 0, "ready")
    assert process.status == -signal.SIGTERM


@pytest.mark.parametrize("way", ["end", "end_async"])
def test_one_that_does_not_end_is_killed(way: str, log: Path) -> None:
    """After the time it was given. A second end does nothing."""
    process = python(STUBBORN, log).start()
    process.wait_until(process.log, 60, "up")
    for _ in range(2):
        if way == "end":
            process.end(seconds=0.05)
        else:
            asyncio.run(process.end_async(seconds=0.05))
        assert process.status == -signal.SIGKILL


def test_what_it_has_forked_ends_with_it(log: Path) -> None:
    """Also when it has ended before."""
    process = python(FORKS, log).start()
    child = int(process.wait_until(lambda: process.log().split(), 60, "forked")[0])
    process.send_signal(signal.SIGTERM)
    process.wait()
    assert alive(child)
    process.end()
    deadline = time.monotonic() + 60
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(child)


def test_a_cancelled_end_kills_at_once(log: Path) -> None:
    """Whoever broke it off does not wait for it."""
    process = python(STUBBORN, log).start()
    process.wait_until(process.log, 60, "up")

    async def broken_off() -> None:
        task = asyncio.create_task(process.end_async(seconds=600))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(broken_off())
    assert process.status == -signal.SIGKILL


def test_it_can_be_started_again(log: Path) -> None:
    """Its log goes on."""
    process = python("print('life')", log)
    for _ in range(2):
        assert process.start().wait() == 0
        process.end()
    assert process.log() == "life\nlife\n"


def test_pipes(log: Path) -> None:
    """Its input and output are ours, its errors go to the log."""
    code = "import sys; sys.stdout.write(input()[::-1]); sys.stderr.write('done')"
    process = python(code, log, piped=True).start()
    stdin, stdout = process.pipes
    stdin.write("abc\n")
    stdin.flush()
    assert stdout.read() == "cba"
    process.end()
    stdin.close()
    stdout.close()
    assert process.log() == "done"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")
def test_it_does_not_outlive_us(log: Path) -> None:
    """However we end."""
    code = (
        "import os, sys; from pathlib import Path; from odinws.harness.process import Process; "
        f"print(Process((sys.executable, '-c', {WAITS!r}), Path({str(log)!r})).start().pid, flush=True); "
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, cwd=os.getcwd())
    deadline = time.monotonic() + 60
    while alive(int(done.stdout)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(int(done.stdout))
