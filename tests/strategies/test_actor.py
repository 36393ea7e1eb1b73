"""`actor`: its owners, and that nothing waits for a walk."""

import gc
import subprocess
import sys
import threading
from contextlib import closing

import gevent
import pytest

import strategies
from strategies import SHARD_KEYS
from strategies.hashing import fnv1a_64
from tests.server import wait_for
from tests.strategies.support import Arm, Conn, populate, settle, walked


@pytest.mark.parametrize("shard_key", SHARD_KEYS)
def test_a_walk_keeps_nobody_waiting(shard_key: str) -> None:
    """Every connection can leave during an open walk, and is not in later batches."""
    strategy = Arm("actor", 4, shard_key).make(batch_size=1)
    conns = populate(strategy, 20, "x")
    with closing(strategy.batches("x")) as walk:
        met = list(next(walk))
        leaving = [gevent.spawn(strategy.discard, conn) for conn in conns[10:]]
        settle(10)
        assert all(greenlet.ready() for greenlet in leaving)
        met += [conn for batch in walk for conn in batch]
    assert set(conns[:10]) <= set(met)
    assert len(set(met) - set(conns[:10])) <= 1  # the first one met may have left since


def test_every_operation_is_a_command() -> None:
    """As many as a locked strategy would take locks: the figures compare."""
    strategy = Arm("actor", 4, "channel").make()
    (conn,) = populate(strategy, 1, "x", "y")
    walked(strategy, "x")
    strategy.unsubscribe(conn, "x")
    strategy.discard(conn)
    figures = [shard.lock for shard in strategy.shards() if shard.lock]
    assert sum(lock.acquisitions for lock in figures) == sum(lock.waits for lock in figures) == 7
    assert max(lock.longest_wait_seconds for lock in figures) > 0
    assert max(lock.longest_hold_seconds for lock in figures) > 0


def test_shards_are_those_of_fnv() -> None:
    """As `fnv-sharded`, so that the two differ in one thing."""
    strategy = Arm("actor", 16, "channel").make()
    populate(strategy, 1, "token.BTC")
    (at,) = [shard.index for shard in strategy.shards() if shard.subscriptions]
    assert at == fnv1a_64(b"token.BTC") % 16


def test_the_owners_end_with_the_registry() -> None:
    """In a process without gevent they are daemon threads, one per shard."""
    before = set(threading.enumerate())
    strategy = strategies.create("actor", shards=5)
    owners = set(threading.enumerate()) - before
    assert len(owners) == 5
    conn = Conn("a")
    assert strategy.add(conn)
    assert strategy.subscribe(conn, "x")
    assert walked(strategy, "x") == [conn]
    assert strategy.discard(conn)
    del strategy
    gc.collect()
    wait_for(lambda: not any(owner.is_alive() for owner in owners), 10, "the end of the owners")


def test_under_patched_threading_the_owners_are_greenlets() -> None:
    """Names are looked up when a registry is made: patching after the import is early enough."""
    program = (
        "import strategies, strategies.actor\n"
        "from gevent import monkey; monkey.patch_all()\n"
        "import gevent, threading\n"
        "from tests.strategies.support import Conn\n"
        "strategy = strategies.create('actor', shards=3)\n"
        "conns = [Conn(str(number)) for number in range(50)]\n"
        "enter = lambda conn: (strategy.add(conn), strategy.subscribe(conn, 'x'))\n"
        "calls = [gevent.spawn(enter, conn) for conn in conns]\n"
        "gevent.joinall(calls, raise_error=True)\n"
        "assert all(call.value == (True, True) for call in calls)\n"
        "assert sum(len(batch) for batch in strategy.batches('x')) == 50\n"
        "tasks = len(__import__('os').listdir('/proc/self/task'))\n"
        "assert tasks == 1, tasks\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
