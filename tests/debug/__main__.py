"""`python -m tests.debug`: what looks cost a server under load, and whether each question has its answer.

Two workers, 2,000 connections with five channels each, the demo feed; about 90 s.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import click
import psutil

from odinws.debug.verbs import VERBS
from odinws.harness import fetch
from tests.server import Server
from tests.swarm import Swarm

_CHANNELS = ["token.BTC", "token.ETH", "token.SOL", "token.ODIN", "token.DOGE"]
_ROUNDS = 2
_LATE_SECONDS = 30.0  # for an answer after its window, on a busy machine
_OPEN = {  # so that a busy machine lets all in
    "WS_CPU_REJECT_THRESHOLD": "100",
    "WS_HUB_LAG_THRESHOLD_MS": "60000",
    "LOG_LEVEL": "warning",
}


@click.command()
@click.option("--connections", default=2000, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--seconds", default=8.0, show_default=True, type=click.FloatRange(1, 60), help="Of a window.")
@click.option("--strategy", default="fnv-sharded", show_default=True)
def main(connections: int, seconds: float, strategy: str) -> None:
    """Print CPU per delivered message, alone and during looks, and the head of each view."""
    with Server({"WS_SHARD_STRATEGY": strategy, **_OPEN}) as server, Swarm(server.port) as swarm:
        swarm.connect(range(connections))
        swarm.settle(60.0)
        swarm.subscribe(range(connections), _CHANNELS)
        swarm.settle(60.0)
        click.echo(f"{server.json('/stats')['connections']:,} connections, {strategy}")
        for _ in range(_ROUNDS):
            for name in ("nothing", "profile", "heap"):
                click.echo(f"{name:<8} {_window(server, name, seconds):.2f} µs of CPU per delivered message")
        for view in (*VERBS, "top"):
            _show(server, view)


def _window(server: Server, look: str, seconds: float) -> float:
    """CPU time of the workers per delivered message, in microseconds."""
    workers = [psutil.Process(pid) for pid in server.workers()]
    delivered, used = server.json("/stats")["fan_out"]["delivered"], _cpu(workers)
    if look == "nothing":
        time.sleep(seconds)
    else:
        path = f"/debug/{look}?seconds={seconds}&format=json"
        assert fetch.get(server.admin_port, path, seconds=seconds + _LATE_SECONDS).status == 200
    used = _cpu(workers) - used
    count: int = server.json("/stats")["fan_out"]["delivered"] - delivered
    return 1e6 * used / max(1, count)


def _cpu(processes: list[psutil.Process]) -> float:
    return sum(float(times.user + times.system) for times in (process.cpu_times() for process in processes))


def _show(server: Server, view: str) -> None:
    """Run the verb as an operator would, and print its first lines."""
    options = {"profile": ["--seconds", "3"], "heap": ["--seconds", "2"], "top": ["--count", "1"]}.get(
        view, []
    )
    command = [sys.executable, "-m", "odinws", "debug", view, *options, "--url", server.admin]
    began = time.monotonic()
    done = subprocess.run(
        command, env={**os.environ, "COLUMNS": "150"}, capture_output=True, text=True, timeout=60
    )
    click.echo(
        f"\n$ python -m odinws debug {' '.join((view, *options))}   # {time.monotonic() - began:.1f} s"
    )
    click.echo("\n".join(done.stdout.splitlines()[:8]) or done.stderr)


if __name__ == "__main__":
    main()
