"""A mailbox and its owner, as greenlets and as real threads."""

import gc
import threading
import time
import weakref
from unittest import mock

import gevent
import gevent.event
import pytest

from strategies.mailbox import Mailbox
from tests.strategies.support import cooperative_locks, settle


def make() -> Mailbox:
    with cooperative_locks():
        return Mailbox()


def test_commands_are_carried_out_in_the_order_of_arrival() -> None:
    """Each sender gets its own answer."""
    mailbox, done = make(), []

    def command(number: int) -> int:
        done.append(number)
        return number * number

    senders = [gevent.spawn(mailbox.call, lambda n=number: command(n)) for number in range(600)]
    gevent.joinall(senders, raise_error=True)
    assert done == list(range(600))
    assert [sender.value for sender in senders] == [number * number for number in range(600)]
    mailbox.close()


def test_an_error_is_the_askers_and_the_owner_serves_on() -> None:
    """A defect costs one call."""
    mailbox = make()
    with pytest.raises(ZeroDivisionError):
        mailbox.call(lambda: 1 / 0)
    assert mailbox.call(lambda: 5) == 5
    mailbox.close()


def test_a_killed_sender_takes_back_what_was_not_begun() -> None:
    """The command is not executed; the current one and those after it are."""
    mailbox, done, go_on = make(), [], gevent.event.Event()

    def hold() -> None:
        go_on.wait()
        done.append("first")

    senders = [gevent.spawn(mailbox.call, hold)]
    senders += [gevent.spawn(mailbox.call, lambda n=name: done.append(n)) for name in ("killed", "behind")]
    settle()
    senders[1].kill()
    go_on.set()
    gevent.joinall(senders)
    assert done == ["first", "behind"]
    assert mailbox.stats().acquisitions == 2
    mailbox.close()


def test_a_sender_killed_while_its_command_is_carried_out_changes_nothing() -> None:
    """It is executed completely, and the owner continues."""
    mailbox, done, go_on = make(), [], gevent.event.Event()

    def hold() -> None:
        go_on.wait()
        done.append("first")

    sender = gevent.spawn(mailbox.call, hold)
    settle()
    sender.kill()
    go_on.set()
    mailbox.call(lambda: done.append("second"))
    assert done == ["first", "second"]
    mailbox.close()


def test_figures_are_those_of_a_lock() -> None:
    """Every command waits; times fit together."""
    mailbox = make()
    for _ in range(3):
        mailbox.call(lambda: time.sleep(0.001))
    stats = mailbox.stats()
    assert (stats.acquisitions, stats.waits) == (3, 3)
    assert stats.longest_hold_seconds >= 0.001
    assert 0 < stats.longest_wait_seconds <= stats.wait_seconds <= 3 * stats.longest_wait_seconds
    mailbox.close()


def test_a_closed_mailbox_leaves_nothing_behind() -> None:
    """The owner ends, and keeps nothing of what was asked before."""
    with mock.patch.object(gevent, "spawn", wraps=gevent.spawn) as spawn:
        mailbox = make()
    (target,), _ = spawn.call_args
    owners = [item for item in gc.get_objects() if issubclass(type(item), gevent.Greenlet)]
    (owner,) = [item for item in owners if getattr(item, "_run", None) == target]

    class Thing:
        pass

    watch = weakref.ref(mailbox.call(Thing))
    gc.collect()
    assert watch() is None
    assert not owner.ready()
    mailbox.close()
    settle()
    assert owner.ready()


def test_it_works_without_gevent_with_a_thread_that_ends() -> None:
    """A process that nobody has patched gets a real thread."""
    before = set(threading.enumerate())
    mailbox = Mailbox()
    (owner,) = set(threading.enumerate()) - before
    assert owner.daemon
    assert [mailbox.call(threading.get_ident) for _ in range(200)] == [owner.ident] * 200
    mailbox.close()
    owner.join(60)
    assert not owner.is_alive()
