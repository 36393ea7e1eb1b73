"""Client processes that are stopped amid their life: their sockets stay open, and nobody reads them."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

from tests.server import ROOT, wait_for
from tests.stress.conftest import Standing
from tests.stress.rest import at_rest, rest
from tests.stress.scene import CHANNELS, CLOSE_SECONDS, IDLE_SECONDS, Stayers

STAYERS = 30
QUIET, FED = 15, 10  # connections of each process
BULK = "token.BULK"
BULK_BYTES = 6_000


def payload(number: int) -> bytes:
    """A long message for the bulk, a short one for what the others hear."""
    filling = "x" * (BULK_BYTES if number % (len(CHANNELS) + 1) == len(CHANNELS) else 100)
    return json.dumps({"type": "price:update", "number": number, "filling": filling}).encode()


@contextlib.contextmanager
def holder(port: int) -> Iterator[subprocess.Popen[str]]:
    """A process that holds connections; it ends with the block."""
    command = [sys.executable, "-m", "tests.stress.holder", *map(str, (port, QUIET, FED)), BULK]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_stopped_processes_are_let_go(standing: Standing) -> None:
    """The quiet end as idle, the fed as slow; continued they read why; killed they leave nothing either."""
    server, url, _ = standing
    before = rest(server)
    ended = Counter(server.json("/stats")["closed"])
    with (
        Stayers(
            server, url, STAYERS, channels=[*CHANNELS, BULK], heard=CHANNELS, rate=420, payload=payload
        ) as stayers,
        holder(server.port) as continued,
        holder(server.port) as killed,
    ):
        for process in (continued, killed):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGSTOP)
        due = {"idle": 2 * QUIET, "slow": 2 * FED}
        wait_for(
            lambda: Counter(server.json("/stats")["closed"]) - ended == due, 2 * IDLE_SECONDS, f"{due} ends"
        )
        wait_for(
            lambda: server.json("/stats")["connections"] == STAYERS, CLOSE_SECONDS + 2, "the slots of all"
        )
        continued.send_signal(signal.SIGCONT)
        killed.kill()
        codes, _ = continued.communicate("report\n", timeout=10)
        assert json.loads(codes) == [4009] * QUIET + [4008] * FED
        stayers.unharmed()
    at_rest(server, before)
