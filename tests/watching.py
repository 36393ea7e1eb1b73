"""What the live page costs the server: `python -m tests.watching --viewers 10`.

Clients with the page's subscriptions, in turn without the figures and with them, so that the difference is
the figures alone. CPU time of all workers, from the kernel.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from contextlib import AsyncExitStack
from statistics import mean, stdev

import psutil
from websockets.asyncio.client import ClientConnection, connect

from odinws.feed.simulator import TOKENS
from odinws.messages.protocol import STATS_CHANNEL
from tests.server import Server

PRICES = [*(f"token.{token}" for token in TOKENS), "global"]
SETTLE_SECONDS = 2.0


async def cores(server: Server, viewers: int, channels: list[str], seconds: float) -> float:
    """What the workers use while so many clients are subscribed, in cores."""
    async with AsyncExitStack() as stack:
        readers = []
        for _ in range(viewers):
            client = await stack.enter_async_context(connect(f"ws://127.0.0.1:{server.admin_port}/ws"))
            await client.send(json.dumps({"type": "subscribe", "data": {"channels": channels}}))
            readers.append(asyncio.create_task(_read(client)))
        await asyncio.sleep(SETTLE_SECONDS)
        workers = [psutil.Process(pid) for pid in server.workers()]
        before = sum(_used(worker) for worker in workers)
        await asyncio.sleep(seconds)
        used = sum(_used(worker) for worker in workers) - before
        for reader in readers:
            reader.cancel()
    return used / seconds


async def _read(client: ClientConnection) -> None:
    async for _ in client:
        pass


def _used(worker: psutil.Process) -> float:
    times = worker.cpu_times()
    return float(times.user + times.system)


def say(line: str) -> None:
    """Print it at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Measure, and print a line per round and the difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--viewers", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each of the two parts of a round")
    parser.add_argument("--strategy", default="fnv-sharded")
    chosen = parser.parse_args()
    differences = []
    with Server({"WS_SHARD_STRATEGY": chosen.strategy, "LOG_LEVEL": "WARNING"}) as server:
        for number in range(1, chosen.rounds + 1):
            without = asyncio.run(cores(server, chosen.viewers, PRICES, chosen.seconds))
            watched = asyncio.run(cores(server, chosen.viewers, [*PRICES, STATS_CHANNEL], chosen.seconds))
            differences.append(100 * (watched - without))
            say(f"round {number}: {100 * without:.2f} % of a core, with the figures {100 * watched:.2f} %")
    spread = stdev(differences) if len(differences) > 1 else 0.0
    say(f"the figures for {chosen.viewers}: {mean(differences):.2f} ± {spread:.2f} % of a core")


if __name__ == "__main__":
    main()
