"""Faults that are put into a real server on purpose, so that what should find them can be tested.

`gunicorn -c tests/sabotage/gunicorn_conf.py` is the server as it is, with faults that the
environment names:

    SABOTAGE_PASS_MS=2          each fan-out pass burns so much CPU time more
    SABOTAGE_LOCK_MS=20         ten times a second the lock of shard 0 is held for so long
    SABOTAGE_DROP_EVERY=1000    of so many messages due to connections, one is not sent and nobody is told
    SABOTAGE_LEAK_BYTES=1024    for each connection so much is kept for ever
    SABOTAGE_ZOMBIES=3          so many connections more than there are, again and again
    SABOTAGE_BURN_SECONDS=3     for so long all of a core is used, then for as long nothing, again and again
    SABOTAGE_GC_SECONDS=0.4     a garbage collection takes so long; there is one every
    SABOTAGE_GC_EVERY=2         so many seconds
    SABOTAGE_REFUSE=memory      clients are refused for this resource, however much of it is free
    SABOTAGE_NAK_SECONDS=0.2    the feed refuses each message, and has it again after so long
    SABOTAGE_STRATEGY=sync-dict only in workers with this strategy
    SABOTAGE_WHILE=/tmp/faulty  only while there is such a file
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from functools import wraps
from typing import Any

import gevent
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig

from odinws.admission.guard import Decision
from odinws.feed import session
from odinws.scheduling import Slice

_SLICE_SECONDS = 0.02
_PAUSE_SECONDS = 0.001  # in which others have their turn
_LOCK_EVERY_SECONDS = 0.1
_HAUNT_EVERY_SECONDS = 1.0
_leaked: list[bytes] = []
_while = ""


def sabotage(services: Any, environ: Mapping[str, str]) -> None:
    """Put the faults that `environ` names into the parts of a worker that is not running yet."""
    global _while
    _while = environ.get("SABOTAGE_WHILE", "")
    only = environ.get("SABOTAGE_STRATEGY")
    if only is not None and services.strategy.name != only:
        return
    if "SABOTAGE_PASS_MS" in environ:
        _slow_passes(services.hub, float(environ["SABOTAGE_PASS_MS"]) / 1000)
    if "SABOTAGE_LOCK_MS" in environ:
        gevent.spawn(hold_lock, services.strategy, float(environ["SABOTAGE_LOCK_MS"]) / 1000)
    if "SABOTAGE_DROP_EVERY" in environ:
        _drop(services.strategy, int(environ["SABOTAGE_DROP_EVERY"]))
    if "SABOTAGE_ZOMBIES" in environ:
        gevent.spawn(_haunt, services.stats, int(environ["SABOTAGE_ZOMBIES"]))
    if "SABOTAGE_BURN_SECONDS" in environ:
        gevent.spawn(_oscillate, float(environ["SABOTAGE_BURN_SECONDS"]))
    if "SABOTAGE_GC_SECONDS" in environ:
        gevent.spawn(_collect, float(environ["SABOTAGE_GC_SECONDS"]), float(environ["SABOTAGE_GC_EVERY"]))
    if "SABOTAGE_REFUSE" in environ:
        _refuse(services.admission._guard, environ["SABOTAGE_REFUSE"])
    if "SABOTAGE_NAK_SECONDS" in environ:
        _nak(float(environ["SABOTAGE_NAK_SECONDS"]))
    if "SABOTAGE_LEAK_BYTES" in environ:
        _leak(services.clients, int(environ["SABOTAGE_LEAK_BYTES"]))


def _active() -> bool:
    return not _while or os.path.exists(_while)


def burn_in_pass(seconds: float) -> None:
    """Use CPU time and do nothing else: what a profile has to name."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def hold_lock(strategy: Any, seconds: float) -> None:
    """Take the lock of shard 0 again and again, and keep it across a switch: what a lock view has to name."""
    lock = strategy._shards[0].lock
    while True:
        if _active():
            with lock:
                gevent.sleep(seconds)
        gevent.sleep(_LOCK_EVERY_SECONDS)


def leak_in_open(size: int) -> None:
    """Keep memory for ever: what a heap difference has to name."""
    _leaked.append(b"\1" * size)


class _Burning(Slice):
    """Begins with each pass, and within what is measured of it."""

    def __init__(self, seconds: float) -> None:
        self._burn_seconds = seconds
        super().__init__()

    def begin(self) -> None:
        if _active():
            burn_in_pass(self._burn_seconds)
        super().begin()


def _slow_passes(hub: Any, seconds: float) -> None:
    hub._slice = _Burning(seconds)


def _drop(strategy: Any, every: int) -> None:
    walk = strategy.batches
    due = 0

    @wraps(walk)
    def lossy(channel: str, turn: int = 0) -> Generator[Sequence[Any], None, None]:
        nonlocal due
        with closing(walk(channel, turn)) as batches:
            for batch in batches:
                if _active():
                    batch, walked = [conn for n, conn in enumerate(batch, due + 1) if n % every], len(batch)
                    due = (due + walked) % every
                if batch:
                    yield batch

    strategy.batches = lossy
    strategy.everyone = lambda *_: None  # so that all walks are these


def _haunt(stats: Any, count: int) -> None:
    """Count connections that are not there, as if their ends had been missed."""
    while True:
        if _active():
            stats.connections += count
        gevent.sleep(_HAUNT_EVERY_SECONDS)


def _collect(seconds: float, every_seconds: float) -> None:
    def burn(phase: str, _info: object) -> None:
        until = time.perf_counter() + seconds * (phase == "start")
        while time.perf_counter() < until:
            pass

    while True:
        gevent.sleep(every_seconds)
        gc.callbacks.append(burn)
        gc.collect()
        gc.callbacks.remove(burn)


def _oscillate(seconds: float) -> None:
    """Use a core and leave it alone in turn, as the predecessor's redeliveries did."""
    while True:
        until = time.monotonic() + seconds
        while _active() and time.monotonic() < until:
            burn_in_pass(_SLICE_SECONDS)
            gevent.sleep(_PAUSE_SECONDS)
        gevent.sleep(seconds)


def _refuse(guard: Any, reason: str) -> None:
    """Refuse as the predecessor did between two looks: whatever is free now."""
    decide = guard.decide

    @wraps(decide)
    def stubborn(*args: Any) -> Any:
        return Decision(False, reason, f"{reason}, as sabotaged", 1) if _active() else decide(*args)

    guard.decide = stubborn


def _nak(seconds: float) -> None:
    """Make the consumer the predecessor's: it acknowledges, and what it refuses comes again."""
    on_message = session.Session._on_stream_message

    def config(**asked: Any) -> ConsumerConfig:
        return ConsumerConfig(**{**asked, "ack_policy": AckPolicy.EXPLICIT, "max_deliver": -1})

    @wraps(on_message)
    def refusing(feed_session: Any, subject: str, reply: bytes, headers: bytes, payload: bytes) -> None:
        on_message(feed_session, subject, reply, headers, payload)
        if reply.startswith(b"$JS.ACK."):
            verdict = Msg.Ack.Nak + b' {"delay": %d}' % (seconds * 1e9) if _active() else Msg.Ack.Ack
            publish = feed_session.client.publish(reply.decode(), verdict)
            feed_session._verdict = feed_session._loop.create_task(publish)

    parts: Any = session
    parts.ConsumerConfig = config
    parts.Session._on_stream_message = refusing


def _leak(clients: Any, size: int) -> None:
    opened = clients.open

    @wraps(opened)
    def leaky(*args: Any) -> Any:
        leak_in_open(size)
        return opened(*args)

    clients.open = leaky
