"""Stalls of the server's own, with real processes: nobody is refused for them, and every count stays true."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from odinws.close_codes import LOAD_REFUSALS
from tests import wire
from tests.server import GUNICORN, PATIENCE_SECONDS, ROOT, Server, wait_for
from tests.stress.leaks import wait_for_connections
from tests.wire import Peer

SETTINGS = {
    "WS_CPU_REJECT_THRESHOLD": "100",  # the tests share the cores with the server
    "WS_RECONCILE_SECONDS": "1",
    "WS_DEMO_FEED": "true",
}
FAULTY = (sys.executable, "-m", "gunicorn", "-c", "tests/sabotage/gunicorn_conf.py")
NEWCOMERS = 50
SECONDS = 10.0  # in which they come
VANISHING = 5000
WRITES = 5  # that the slow disk is late with


def refused_for_load(server: Server) -> dict[str, int]:
    """How many the guard has refused, by resource."""
    refused: dict[str, Any] = server.json("/stats")["refused"]
    return {reason: refused[reason] for reason in LOAD_REFUSALS if refused[reason]}


def enter(server: Server) -> Peer:
    """A newcomer that tries until it is in; whoever is late for its turn may be told to come again."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        peer = Peer(server.port)
        peer.send(wire.request())
        if peer.http().status == 101:
            return peer
        peer.shut()
        assert time.monotonic() < until, "a newcomer is still outside"
        time.sleep(0.2)


@contextlib.contextmanager
def newcomers(server: Server, already: int = 0) -> Iterator[None]:
    """Who comes in the next seconds is in when the block ends, nobody was refused for load, all counts agree.

    Args:
        already: connections that the server has.
    """
    before = refused_for_load(server)
    peers: list[Peer] = []
    with contextlib.ExitStack() as stack:
        thread = threading.Thread(target=lambda: peers.extend(_enter_all(server)))
        thread.start()
        yield
        thread.join()
        for peer in peers:
            stack.enter_context(peer)
        assert len(peers) == NEWCOMERS
        assert refused_for_load(server) == before
        wait_for_connections(server, NEWCOMERS + already, 10)
        health = server.json("/health")
        assert health["checks"]["hub_lag"]["healthy"], health["warnings"]
    wait_for_connections(server, already, 10)
    stats = server.json("/stats")
    assert stats["accepted"] - sum(stats["closed"].values()) == already
    assert not any(stats["reconciliation"]["differences"].values())


def _enter_all(server: Server) -> Iterator[Peer]:
    for _ in range(NEWCOMERS):
        yield enter(server)
        time.sleep(SECONDS / NEWCOMERS)


def test_thousands_that_vanish_at_once_shut_nobody_out() -> None:
    """All are gone, each counted once, and those who come meanwhile get in."""
    with Server({**SETTINGS, "WS_WORKERS": "1"}) as server:
        command = [sys.executable, "-m", "tests.stress.vanishing_clients"]
        process = subprocess.Popen(
            [*command, str(server.port), str(VANISHING), "token.BTC"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            assert refused_for_load(server) == {}
            process.kill()
        with newcomers(server):
            pass
        closed = server.json("/stats")["closed"]
        assert {reason: count for reason, count in closed.items() if count} == {"gone": VANISHING + NEWCOMERS}


def test_a_process_that_was_stopped_refuses_nobody() -> None:
    """Each worker stands still for two seconds, and goes on."""
    with Server(SETTINGS) as server:
        workers = server.workers()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(2.0)
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
        with newcomers(server):
            pass


def test_a_worker_that_stays_stopped_holds_nobody_back() -> None:
    """Whatever it used when it was stopped: the other one admits."""
    with Server(SETTINGS) as server, newcomers(server):
        stopped = server.workers()[0]
        os.kill(stopped, signal.SIGSTOP)
        try:
            time.sleep(SECONDS / 2)
        finally:
            os.kill(stopped, signal.SIGCONT)


class SlowDisk:
    """What the server writes its log to: a pipe that takes everything, except while it is full."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "log"
        os.mkfifo(self.path)
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_NONBLOCK)
        fcntl.fcntl(self._descriptor, fcntl.F_SETPIPE_SZ, 4096)
        self._taking = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._take)

    def _take(self) -> None:
        while not self._stopping.wait(0.01):
            with self._taking, contextlib.suppress(BlockingIOError):
                while True:
                    os.read(self._descriptor, 1 << 16)

    def be_late(self, seconds: float) -> None:
        """Take nothing for so long: whoever writes waits."""
        with self._taking:
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(self._descriptor, b" ")
            time.sleep(seconds)

    def __enter__(self) -> SlowDisk:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        os.close(self._descriptor)


def test_a_slow_disk_under_the_log_refuses_nobody(tmp_path: Path) -> None:
    """Each line is written, and the workers wait for it: now and then, once for two seconds."""
    with SlowDisk(tmp_path) as disk:
        command = ("/bin/sh", "-c", 'exec "$@" 2>"$0"', str(disk.path), *GUNICORN)
        with Server({**SETTINGS, "LOG_LEVEL": "debug"}, command=command) as server:
            before = server.metric("ws_hub_stall_longest_seconds")
            with newcomers(server):
                for _ in range(WRITES):
                    disk.be_late(0.3)
                    time.sleep(1.0)
                disk.be_late(2.0)
            assert server.metric("ws_hub_stall_longest_seconds") > max(1.0, before), "nobody had to wait"


def test_garbage_collections_refuse_nobody() -> None:
    """Of 400 ms, one every two seconds."""
    faults = {"SABOTAGE_GC_SECONDS": "0.4", "SABOTAGE_GC_EVERY": "2"}
    with Server({**SETTINGS, **faults}, command=FAULTY) as server:
        with newcomers(server):
            pass
        assert server.metric("ws_gc_longest_seconds") >= 0.4


def test_a_worker_that_is_behind_refuses() -> None:
    """One iteration of 400 ms after the other: the guard admits some of those who come together."""
    faults = {"SABOTAGE_GC_SECONDS": "0.4", "SABOTAGE_GC_EVERY": "0.05"}
    rates = {"WS_WORKERS": "1", "WS_ADMISSION_START_RATE": "10"}
    with Server({**SETTINGS, **faults, **rates}, command=FAULTY) as server:
        wait_for(lambda: not server.json("/health")["checks"]["hub_lag"]["healthy"], 20, "its lag")
        assert server.json("/health")["warnings"][0].startswith("hub lag ")

        def refused() -> dict[str, int]:
            with contextlib.ExitStack() as stack:
                peers = [stack.enter_context(Peer(server.port)) for _ in range(NEWCOMERS)]
                for peer in peers:
                    peer.send(wire.request())
                for peer in peers:
                    peer.http()
            return refused_for_load(server)

        assert set(wait_for(refused, 20, "a refusal")) == {"hub_lag"}
