"""What the agents of Python share: the plan in their argument, records as lines of JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine
from typing import Any

WRITE_SECONDS = 0.05
_waiting: list[str] = []


def plan() -> Any:
    """What this agent is told."""
    return json.loads(sys.argv[1])


def emit(*record: Any) -> None:
    """Note a record; it is written soon."""
    _waiting.append(json.dumps(record))


def write() -> None:
    """Write what was noted."""
    if _waiting:
        sys.stdout.write("\n".join([*_waiting, ""]))
        sys.stdout.flush()
        _waiting.clear()


async def run(*clients: Coroutine[Any, Any, None]) -> None:
    """Run clients and write what they note, until the input ends. Raises what a client raises."""
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    tasks = [asyncio.create_task(client) for client in clients]
    while not ended.done():
        for task in tasks:
            if task.done():
                task.result()
        write()
        await asyncio.sleep(WRITE_SECONDS)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
