"""The companion and the arbiter's handle on it, with real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nats
import pytest

from odinws.companion import Companion, CompanionError
from odinws.feed.simulator import TOKENS
from tests.nats import NatsServer, alive
from tests.server import PATIENCE_SECONDS, wait_for

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def temporary_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let data directories be made where the test can see them."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def companion() -> Iterator[Companion]:
    companion = Companion.start(embedded=True, demo=False)
    yield companion
    companion.close()


@dataclass
class Traces:
    """Everything a companion has and must not leave behind."""

    companion_pid: int
    nats_pid: int
    port: int
    directory: Path

    @classmethod
    def of(cls, pid: int, url: str, temporary_root: Path) -> Traces:
        (nats_pid,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        (directory,) = temporary_root.glob("odinws-nats-*")
        return cls(pid, int(nats_pid), int(url.rpartition(":")[2]), directory)

    def processes(self) -> list[int]:
        return [pid for pid in (self.companion_pid, self.nats_pid) if alive(pid)]

    def listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def all_gone(self) -> bool:
        return not self.processes() and not self.listening() and not self.directory.exists()


@pytest.fixture
def traces(companion: Companion, temporary_root: Path) -> Traces:
    traces = Traces.of(companion.pid, companion.nats_url, temporary_root)
    assert len(traces.processes()) == 2
    assert traces.listening()
    assert traces.directory.exists()
    return traces


def test_nats_is_up_when_start_returns(companion: Companion) -> None:
    """The embedded server answers, JetStream included, as soon as `start` has returned."""

    async def run() -> None:
        connection = await nats.connect(companion.nats_url, allow_reconnect=False)
        await connection.jetstream().add_stream(name="S", subjects=["odin.>"])
        await connection.close()

    asyncio.run(run())


def test_close_leaves_nothing(companion: Companion, traces: Traces) -> None:
    """After `close` there is no process, no port and no directory, and a second `close` does nothing."""
    companion.close()
    assert traces.all_gone()
    companion.close()


def test_sigterm(companion: Companion, traces: Traces) -> None:
    """SIGTERM ends the companion, which takes all it owns with it."""
    os.kill(companion.pid, signal.SIGTERM)
    wait_for(traces.all_gone, PATIENCE_SECONDS, "all is gone")


def test_sigterm_with_a_hanging_nats_server(companion: Companion, traces: Traces) -> None:
    """A nats-server that does not react is killed in time."""
    os.kill(traces.nats_pid, signal.SIGSTOP)
    os.kill(companion.pid, signal.SIGTERM)
    wait_for(traces.all_gone, PATIENCE_SECONDS, "all is gone")


def test_sigint_is_the_arbiters_business(companion: Companion, traces: Traces) -> None:
    """A terminal's Ctrl-C does not reach companion or server, and the companion is deaf to SIGINT."""
    for pid in (companion.pid, traces.nats_pid):
        assert os.getsid(pid) == pid
    os.kill(companion.pid, signal.SIGINT)
    ignored = int(Path(f"/proc/{companion.pid}/status").read_text().partition("SigIgn:")[2].split()[0], 16)
    assert ignored & 1 << (signal.SIGINT - 1)
    assert len(traces.processes()) == 2


def test_kill_9_of_the_companion(companion: Companion, traces: Traces) -> None:
    """When the companion is killed its server dies too, and `close` removes the directory."""
    os.kill(companion.pid, signal.SIGKILL)
    wait_for(
        lambda: not traces.processes() and not traces.listening(), PATIENCE_SECONDS, "the processes are gone"
    )
    companion.close()
    assert traces.all_gone()


def test_close_when_the_child_was_reaped(companion: Companion, traces: Traces) -> None:
    """An arbiter reaps all its children; `close` does not need the exit status, nor signal a stranger."""
    os.kill(companion.pid, signal.SIGKILL)
    assert os.waitpid(companion.pid, 0)[0] == companion.pid
    companion.close()
    assert traces.all_gone()


def test_close_kills_a_companion_that_hangs(companion: Companion, traces: Traces) -> None:
    """A companion that does not react to the end of its stdin is killed, with all it owns."""
    os.kill(companion.pid, signal.SIGSTOP)
    companion.close()
    assert traces.all_gone()


def test_close_waits_for_a_server_that_outlives_a_killed_companion(
    companion: Companion, traces: Traces
) -> None:
    """A server ends a little later than its killed companion: `close` waits for the one in the ports file."""
    with subprocess.Popen(["sleep", "0.3"]) as slow:
        (ports,) = traces.directory.glob("*.ports")
        ports.rename(ports.with_name(f"nats-server_{slow.pid}.ports"))
        os.kill(companion.pid, signal.SIGKILL)
        companion.close()
        assert not alive(slow.pid)
        assert not traces.directory.exists()


def test_close_in_a_forked_child_only_lets_go(companion: Companion, traces: Traces) -> None:
    """A worker that calls `close`, say at its exit, ends nothing."""
    child = os.fork()
    if child == 0:
        companion.close()
        os._exit(0)
    assert os.waitpid(child, 0) == (child, 0)
    assert len(traces.processes()) == 2
    assert traces.directory.exists()


PARENT = """
import json, os, sys, tempfile, time
from odinws.companion import Companion
tempfile.tempdir = sys.argv[1]
companion = Companion.start(embedded=True, demo=True)
worker = os.fork()
if worker == 0:
    companion.forget()
    time.sleep(60)
    os._exit(0)
print(json.dumps([companion.pid, companion.nats_url, worker]), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_death_of_the_arbiter(temporary_root: Path, number: signal.Signals) -> None:
    """When the arbiter dies without a word, nothing is left, even while a worker of it lives on."""
    command = [sys.executable, "-c", PARENT, str(temporary_root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        pid, url, worker = json.loads(parent.stdout.readline())
        try:
            traces = Traces.of(pid, url, temporary_root)
            assert len(traces.processes()) == 2
            parent.send_signal(number)
            parent.wait()
            wait_for(traces.all_gone, PATIENCE_SECONDS, "all is gone")
            assert alive(worker)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)


def test_the_server_comes_back_under_the_same_url(
    temporary_root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A killed nats-server is started again at its address, and that is logged to the arbiter's stderr."""
    said: list[str] = []

    def logged() -> bool:
        said.append(capfd.readouterr().err)
        return "\n" in "".join(said)

    companion = Companion.start(embedded=True, demo=False, log_format="json")
    try:
        traces = Traces.of(companion.pid, companion.nats_url, temporary_root)
        os.kill(traces.nats_pid, signal.SIGKILL)
        wait_for(lambda: not alive(traces.nats_pid) and traces.listening(), 10.0, "the server is back")
        wait_for(logged, 10.0, "a line on stderr")
    finally:
        companion.close()
    line = json.loads("".join(said).splitlines()[0])
    port = companion.nats_url.rpartition(":")[2]
    assert line["message"] == f"nats-server ended with code -9, starting it again at port {port}"
    assert line["level"] == "warning"
    assert line["timestamp"].endswith("Z")


def receive(url: str, subject: str, count: int) -> list[dict[str, object]]:
    """Return the first `count` messages on `subject`."""

    async def run() -> list[dict[str, object]]:
        connection = await nats.connect(url)
        subscription = await connection.subscribe(subject)
        messages = [json.loads((await subscription.next_msg(PATIENCE_SECONDS)).data) for _ in range(count)]
        await connection.close()
        return messages

    return asyncio.run(run())


def test_demo_feed() -> None:
    """The demo feed is the original one: bursts of all ten tokens, each 0.52 s."""
    companion = Companion.start(embedded=True, demo=True, prefix="demo.")
    try:
        messages = receive(companion.nats_url, "demo.token.*", 40)
    finally:
        companion.close()
    first = next(number for number, message in enumerate(messages) if message["tokenId"] == TOKENS[0])
    for start in (first, first + 10):
        assert tuple(message["tokenId"] for message in messages[start : start + 10]) == TOKENS
    sent = [int(str(message["timestamp"])) for message in messages[first:]]
    assert sent[20] - sent[0] == pytest.approx(2 * 10 / 19.2 * 1000, abs=600)
    assert sent[9] - sent[0] < sent[10] - sent[9]


def test_demo_feed_on_a_given_server(tmp_path: Path, temporary_root: Path) -> None:
    """With someone else's server it runs none, does not wait for it, and keeps the URL to itself."""
    with NatsServer(tmp_path / "nats") as server:
        url = server.url.replace("nats://", "nats://user:secret@")
        server.kill()
        companion = Companion.start(embedded=False, demo=True, nats_url=url)
        try:
            assert companion.nats_url == url
            assert "secret" not in Path(f"/proc/{companion.pid}/cmdline").read_text()
            assert not Path(f"/proc/{companion.pid}/task/{companion.pid}/children").read_text()
            server.restart()
            assert receive(server.url, "odin.token.*", 1)
        finally:
            companion.close()
        assert alive(server.pid)
    assert not list(temporary_root.glob("odinws-nats-*"))


def fake_python(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_failed_start_tells_why(temporary_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A companion that ends at once is an error with the last of its stderr, and leaves nothing."""
    monkeypatch.setattr(sys, "executable", fake_python(temporary_root / "python", "echo no room >&2; exit 1"))
    with pytest.raises(CompanionError) as caught:
        Companion.start(embedded=True, demo=True)
    assert caught.value.stderr_tail == "no room"
    assert str(caught.value) == "the companion ended before NATS was up: no room"
    assert not list(temporary_root.glob("odinws-nats-*"))


def test_start_is_bounded(temporary_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A companion that says nothing in time is an error, and is not left running."""
    pid_file = temporary_root / "pid"
    script = f"echo still thinking >&2; echo $$ > {pid_file}; exec sleep 60"
    monkeypatch.setattr(sys, "executable", fake_python(temporary_root / "python", script))
    with pytest.raises(CompanionError, match=r"did not say in time.*still thinking"):
        Companion.start(embedded=True, demo=False, timeout_seconds=3.0)
    assert not alive(int(pid_file.read_text()))
    assert not list(temporary_root.glob("odinws-nats-*"))


ALONE = """
import runpy, sys
sys.executable = sys.argv.pop(1)
runpy.run_module("odinws.companion", run_name="__main__")
"""


def run(directory: Path, executable: str = sys.executable) -> subprocess.Popen[str]:
    """A companion without an arbiter. It takes the nats-server beside `executable`."""
    return subprocess.Popen(
        [sys.executable, "-c", ALONE, executable, "--embedded", "--directory", str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def test_without_a_first_line_nothing_is_made(tmp_path: Path) -> None:
    """An arbiter that is gone when its companion comes up would remove nothing."""
    with run(tmp_path / "data") as process:
        assert process.communicate() == ("", "")
        assert process.returncode == 0
    assert not (tmp_path / "data").exists()


def test_a_directory_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    """Everybody may write where temporary files go: one that exists already is neither used nor removed."""
    with run(tmp_path) as process:
        assert "File exists" in process.communicate("\n")[1]
        assert process.returncode == 1
    assert tmp_path.exists()


def test_failure_of_nats_is_told(tmp_path: Path) -> None:
    """When the nats-server cannot start, the companion says why, ends with 1 and removes the directory."""
    directory = tmp_path / "data"
    fake_python(tmp_path / "nats-server", "echo no room >&2; exit 1")
    with run(directory, str(tmp_path / "python")) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.wait(60) == 1
        assert process.stdout.read() == ""
        assert process.stderr.read() == "nats-server ended with code 1 before it was ready: no room\n"
    assert not directory.exists()


@pytest.mark.parametrize(
    ("embedded", "demo", "nats_url"),
    [(True, True, "nats://127.0.0.1:4222"), (False, True, None), (False, False, "nats://127.0.0.1:4222")],
)
def test_senseless_arguments(embedded: bool, demo: bool, nats_url: str | None) -> None:
    """An embedded server or the URL of another, not both, and something to do: all else is refused."""
    with pytest.raises(ValueError, match=r"either an embedded server|nothing to do"):
        Companion.start(embedded=embedded, demo=demo, nats_url=nats_url)


def test_the_arbiters_half_imports_neither_asyncio_nor_ssl() -> None:
    """The arbiter can be patched by gevent after it has imported the companion."""
    code = "import sys, odinws.companion; print(sorted({'asyncio', 'ssl', 'nats'} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ended.stdout.strip() == "[]"
