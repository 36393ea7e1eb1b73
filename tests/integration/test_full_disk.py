"""Disks that are full or read-only: real mounts, in a mount namespace of the server's own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.ledger import publish
from tests.nats import NatsServer
from tests.programs import find, miss
from tests.server import GUNICORN, PATIENCE_SECONDS, Server, wait_for
from tests.wire import Peer

SMALL = "size=1m"
NO_INODES = "size=1m,nr_inodes=2"  # as a quota on files: the root and one more
SECONDS = 8.0  # workers of a full disk were dead within 6 s


def unshare() -> tuple[str, ...]:
    """What gives a command a mount namespace of its own."""
    program = find("unshare", "util-linux")
    for options in (("--mount",), ("--mount", "--map-root-user")):
        tried = [program, *options, "mount", "-t", "tmpfs", "none", "/mnt"]
        if subprocess.run(tried, capture_output=True, check=False).returncode == 0:
            return program, *options
    return miss("no mount namespace may be made here: run as root, or permit user namespaces")


@contextlib.contextmanager
def served(disk: Path, options: str, settings: Mapping[str, str], more: str = "") -> Iterator[Server]:
    """A server that sees a tmpfs at `disk`, which is its TMPDIR.

    Args:
        options: of the mount.
        more: shell commands before the server starts; its command is `"$@"`.
    """
    mount = f"mount -t tmpfs -o {options} none {disk}"
    script = f'{mount} && {more or "true"} && exec "$@"'
    command = (*unshare(), "sh", "-c", script, "sh", *GUNICORN)
    server = Server({"TMPDIR": str(disk), **settings}, command=command)
    try:
        yield server
    finally:
        server.stop()


def fill(directory: Path) -> None:
    """Leave not one byte."""
    with contextlib.suppress(OSError), (directory / "fill").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def inside(server: Server, path: Path) -> Path:
    """A path as the server sees it."""
    return Path(f"/proc/{server.pid}/root{path}")


def lives_on(server: Server, nats: NatsServer, seconds: float = 1.0) -> None:
    """It delivers, counts, looks inside, replaces a killed worker, reloads, and stops in order."""
    workers = set(server.workers())
    assert len(workers) == 2
    with Peer(server.port) as peer:
        peer.upgrade()
        assert peer.ask("subscribe", channels=["token.BTC"])["count"] == 1
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            publish(nats.url, [("token.BTC", b'{"n":1}')])
            assert peer.answer("message")["data"] == {"n": 1}
            time.sleep(0.5)
    assert set(server.workers()) == workers
    assert server.ask("/debug/events")[0] == 200
    assert server.ask("/debug/profile?seconds=1")[0] == 200
    assert server.json("/health")["status"] != "unhealthy"
    os.kill(min(workers), signal.SIGKILL)
    wait_for(lambda: len(found := set(server.workers())) == 2 and found != workers, 10, "a successor")
    before = set(server.workers())
    server.signal(signal.SIGHUP)
    wait_for(lambda: len(found := set(server.workers())) == 2 and not found & before, 10, "new workers")
    server.signal(signal.SIGTERM)
    assert server.wait(PATIENCE_SECONDS) == 0
    assert "Traceback" not in server.log()


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Where a disk is mounted."""
    path = tmp_path / "disk"
    path.mkdir()
    return path


def test_a_disk_that_fills_up(disk: Path, nats: NatsServer) -> None:
    """Nothing of the server is on it."""
    with served(disk, SMALL, {"NATS_URL": nats.url}) as server:
        server.start()
        fill(inside(server, disk))
        lives_on(server, nats, SECONDS)


@pytest.mark.parametrize("options", ["ro", NO_INODES, SMALL])
def test_a_disk_that_takes_nothing_at_the_start(disk: Path, nats: NatsServer, options: str) -> None:
    """Read-only, without room for one more file, or full; and /dev/shm alike."""
    more = f"mount -t tmpfs -o {options} none /dev/shm"
    if options != "ro":
        more += f"; for at in {disk} /dev/shm; do cat /dev/zero >$at/fill 2>/dev/null; done; true"
    with served(disk, options, {"NATS_URL": nats.url}, more) as server:
        server.start()
        lives_on(server, nats)


def test_logs_on_a_full_disk(disk: Path, nats: NatsServer) -> None:
    """What can't be written is not written; the server does its work."""
    more = f"cat /dev/zero >{disk}/fill 2>/dev/null; exec >{disk}/out 2>{disk}/err"
    with served(disk, SMALL, {"NATS_URL": nats.url, "LOG_ACCESS": "1", "LOG_LEVEL": "debug"}, more) as server:
        server.start()
        lives_on(server, nats)


def test_the_embedded_nats_on_a_disk_that_fills_up(disk: Path) -> None:
    """It can store no more; the server and its clients stay."""
    with served(disk, "size=20m", {"JS_STREAM_MAX_BYTES": str(1 << 20)}) as server:
        server.start()
        workers = server.workers()
        with Peer(server.port) as peer:
            peer.upgrade()
            assert peer.ask("subscribe", channels=["token.*"])["count"] == 1
            peer.answer("price:update")
            fill(inside(server, disk))
            time.sleep(SECONDS)
            assert server.workers() == workers
            assert peer.ask("heartbeat")["type"] == "pong"
        server.signal(signal.SIGTERM)
        assert server.wait(PATIENCE_SECONDS) == 0
