"""Runs many histories at once on one nats-server, which is killed and started again meanwhile."""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from queue import Empty, Queue

import gevent

from tests.losses.history import History
from tests.losses.world import Admin, World, hurried
from tests.nats import NatsServer
from tests.server import free_port

RESTART_SECONDS = 4.0


def run(
    histories: Mapping[int, History],
    directory: Path,
    *,
    threads: int = 8,
    restarts: bool = True,
    tell: Callable[[int], None] = lambda _: None,
) -> dict[int, list[str]]:
    """Run histories; what is wrong with those that failed.

    Args:
        restarts: whether nats-server is killed now and then.
        tell: called with the number of each history that is done.
    """
    waiting: Queue[int] = Queue()
    for number in histories:
        waiting.put(number)
    failed: dict[int, list[str]] = {}

    def work(admin: Admin, url: str) -> None:
        with contextlib.suppress(Empty):
            while True:
                one = threading.Thread(target=single, args=(admin, url, waiting.get_nowait()))
                one.start()
                one.join()

    def single(admin: Admin, url: str, number: int) -> None:
        try:
            wrong = World(admin, url, number, histories[number]).run()
        except Exception:  # noqa: BLE001 - it is a result
            wrong = [traceback.format_exc()]
        if wrong:
            failed[number] = wrong
        tell(number)
        gevent.get_hub().destroy()

    with hurried(), NatsServer(directory, port=free_port()) as server, _admin(server.url) as admin:
        workers = [threading.Thread(target=work, args=(admin, server.url)) for _ in range(threads)]
        for worker in workers:
            worker.start()
        began = time.monotonic()
        while any(worker.is_alive() for worker in workers):
            time.sleep(0.1)
            if restarts and time.monotonic() - began > RESTART_SECONDS:
                server.restart()
                began = time.monotonic()
    return failed


@contextlib.contextmanager
def _admin(url: str) -> Iterator[Admin]:
    admin = Admin(url)
    try:
        yield admin
    finally:
        admin.close()
