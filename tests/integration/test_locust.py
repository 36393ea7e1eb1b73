"""The swarm is a client of another make: it runs through Locust's own command line."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

from tests.server import ROOT, Server

CLIENTS = 50


def test_a_swarm_connects_subscribes_and_finds_nothing_wrong(tmp_path: Path) -> None:
    """Fifty clients over the demo feed: all get in, messages come, and no message is out of place."""
    with Server({"LOG_LEVEL": "warning"}) as server:
        command = [sys.executable, "-m", "locust", "-f", "locustfiles/fanout.py", "--headless"]
        command += ["-t", "6s", "--odin-connections", str(CLIENTS), "--host", server.ws.removesuffix("/ws")]
        command += ["--csv", str(tmp_path / "swarm"), "--only-summary"]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.returncode in (0, 3), run.stdout + run.stderr
    with (tmp_path / "swarm_stats.csv").open() as file:
        rows = {row["Name"]: row for row in csv.DictReader(file)}
    assert int(rows["connect"]["Request Count"]) == CLIENTS
    assert int(rows["subscribe"]["Request Count"]) == CLIENTS
    assert int(rows["delivery"]["Request Count"]) > 0
    assert int(rows["Aggregated"]["Failure Count"]) == 0
