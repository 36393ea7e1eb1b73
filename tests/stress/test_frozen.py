"""Processes that are stopped amid their life: clients, whose sockets nobody reads then, and workers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator

from tests.server import PATIENCE_SECONDS, ROOT, wait_for
from tests.stress.conftest import RunningServer
from tests.stress.leaks import assert_no_leaks, measure_baseline
from tests.stress.scenario import CHANNELS, IDLE_SECONDS, RATE, Listeners

LISTENERS = 30
QUIET, FED = 15, 10  # connections of each process
BULK = "token.BULK"
BULK_BYTES = 6_000


def payload(number: int) -> bytes:
    """A long message for the bulk channel, a short one for the others."""
    filling = "x" * (BULK_BYTES if number % (len(CHANNELS) + 1) == len(CHANNELS) else 100)
    return json.dumps({"type": "price:update", "number": number, "filling": filling}).encode()


@contextlib.contextmanager
def frozen_clients(port: int) -> Iterator[subprocess.Popen[str]]:
    """A process that holds connections; it ends with the block."""
    command = [sys.executable, "-m", "tests.stress.frozen_clients", *map(str, (port, QUIET, FED)), BULK]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_stopped_processes_are_let_go(standing: RunningServer) -> None:
    """The quiet end as idle, the fed as slow; continued they read why; killed they leave nothing either."""
    server, url, _ = standing
    before = measure_baseline(server)
    ended = Counter(server.json("/stats")["closed"])
    with (
        Listeners(
            server, url, LISTENERS, channels=[*CHANNELS, BULK], subscribed=CHANNELS, rate=420, payload=payload
        ) as listeners,
        frozen_clients(server.port) as continued,
        frozen_clients(server.port) as killed,
    ):
        for process in (continued, killed):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGSTOP)
        due = {"idle": 2 * QUIET, "slow": 2 * FED}
        wait_for(lambda: Counter(server.json("/stats")["closed"]) - ended == due, 60, f"{due} ends")
        wait_for(lambda: server.json("/stats")["connections"] == LISTENERS, 60, "the slots of all")
        continued.send_signal(signal.SIGCONT)
        killed.kill()
        codes, _ = continued.communicate("report\n", timeout=PATIENCE_SECONDS)
        assert json.loads(codes) == [4009] * QUIET + [4008] * FED
        listeners.assert_complete()
    assert_no_leaks(server, before)


def test_workers_that_were_stopped_close_nobody(standing: RunningServer) -> None:
    """Who could not be heard for longer than a client may be silent is not taken for dead."""
    server, url, _ = standing
    before = measure_baseline(server)
    with Listeners(server, url, LISTENERS, rate=RATE / 10) as listeners:
        workers = server.workers()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(IDLE_SECONDS + 1)
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
        listeners.assert_complete()
    assert_no_leaks(server, before)
