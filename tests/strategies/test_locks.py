"""The lock and its figures, exact, with greenlets and a clock set by hand."""

import gevent
import gevent.event
import pytest

from strategies import BOUNDS_SECONDS, LockStats
from strategies.locks import InstrumentedLock
from tests.strategies.support import cooperative_locks, settle


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("strategies.locks.perf_counter", clock)
    return clock


@pytest.fixture
def lock() -> InstrumentedLock:
    with cooperative_locks():
        return InstrumentedLock()


class Holder:
    """A greenlet that takes the lock and holds it until it is released."""

    def __init__(self, lock: InstrumentedLock, log: list[str], name: str = "") -> None:
        self.let_go = gevent.event.Event()
        self._lock, self._log, self._name = lock, log, name
        self.greenlet = gevent.spawn(self._run)
        settle()

    def _run(self) -> None:
        with self._lock:
            self._log.append(self._name)
            self.let_go.wait()

    def finish(self) -> None:
        self.let_go.set()
        self.greenlet.get()


@pytest.fixture
def log() -> list[str]:
    """The holders of the lock, in order."""
    return []


def test_a_new_lock_has_seen_nothing(lock: InstrumentedLock) -> None:
    """All figures begin at zero."""
    assert lock.stats() == LockStats(0, 0, 0.0, 0.0, 0.0)


def test_free_lock_counts_acquisitions_and_longest_hold(lock: InstrumentedLock, clock: Clock) -> None:
    """Without contention nothing waits, and the longest hold is kept."""
    for seconds in (1.0, 4.0, 2.0):
        with lock:
            clock.now += seconds
    assert lock.stats() == LockStats(3, 0, 0.0, 0.0, 4.0)


def test_waits_are_counted_and_timed(lock: InstrumentedLock, clock: Clock, log: list[str]) -> None:
    """Two waiters of 7 s and 5 s: the sum, the longest, and the longest hold."""
    first = Holder(lock, log, "first")
    second = Holder(lock, log, "second")
    clock.now += 7
    first.finish()
    settle()
    third = Holder(lock, log, "third")
    clock.now += 5
    second.finish()
    third.finish()
    assert log == ["first", "second", "third"]
    assert lock.stats() == LockStats(
        acquisitions=3, waits=2, wait_seconds=12.0, longest_wait_seconds=7.0, longest_hold_seconds=7.0
    )


def test_figures_can_be_read_while_it_is_held(lock: InstrumentedLock, clock: Clock, log: list[str]) -> None:
    """The acquisition under way counts; its hold, which has not ended, does not."""
    holder = Holder(lock, log)
    clock.now += 9
    assert lock.stats() == LockStats(1, 0, 0.0, 0.0, 0.0)
    holder.finish()
    assert lock.stats().longest_hold_seconds == 9.0


def _spread(counts: tuple[int, ...]) -> dict[float, int]:
    """The buckets that have anything, by their upper bound."""
    bounds = (*BOUNDS_SECONDS, float("inf"))
    return {bound: count for bound, count in zip(bounds, counts, strict=True) if count}


def test_the_profile_of_a_new_lock(lock: InstrumentedLock) -> None:
    """All zero."""
    profile = lock.profile()
    assert profile.stats == lock.stats()
    assert (profile.waiting, profile.holding_seconds, profile.hold_seconds) == (0, 0.0, 0.0)
    assert _spread(profile.waits) == _spread(profile.holds) == {}


def test_holds_are_spread_over_buckets(lock: InstrumentedLock, clock: Clock) -> None:
    """Each in that of its length, a bound in its own, and their sum is known."""
    clock.now = 0.5
    for seconds in (0.0, 2**-14, 0.5, 0.5, 8.0):  # such that sums of them are exact
        with lock:
            clock.now += seconds
    profile = lock.profile()
    assert _spread(profile.holds) == {0.0001: 2, 0.5: 2, float("inf"): 1}
    assert sum(profile.holds) == profile.stats.acquisitions == 5
    assert profile.hold_seconds == 9.0 + 2**-14
    assert profile.longest_holder.startswith("test_holds_are_spread_over_buckets:")


def test_the_profile_names_who_holds_and_who_waits(
    lock: InstrumentedLock, clock: Clock, log: list[str]
) -> None:
    """Now and for the longest time; a lock on its way from hand to hand is held by nobody."""
    first, second = Holder(lock, log, "first"), Holder(lock, log, "second")
    clock.now += 7
    profile = lock.profile()
    assert (profile.waiting, profile.holding_seconds) == (1, 7.0)
    assert sum(profile.holds) == 0
    first.let_go.set()
    first.greenlet.join(0)
    settle()
    assert lock.profile().waiting == 0
    second.finish()
    profile = lock.profile()
    assert _spread(profile.waits) == {float("inf"): 1}
    assert sum(profile.holds) == 2
    assert profile.longest_waiter.startswith("Holder._run:")
    assert profile.longest_holder.startswith("Holder._run:")
    assert profile.holding_seconds == 0.0


def test_it_excludes(lock: InstrumentedLock) -> None:
    """Of many greenlets that switch inside, one at a time is inside."""
    inside = 0

    def work() -> None:
        nonlocal inside
        for _ in range(20):
            with lock:
                inside += 1
                assert inside == 1
                gevent.sleep(0)
                inside -= 1

    gevent.joinall([gevent.spawn(work) for _ in range(10)], raise_error=True)
    stats = lock.stats()
    assert stats.acquisitions == 200
    assert 0 < stats.waits < 200


def test_first_come_first_served(lock: InstrumentedLock, log: list[str]) -> None:
    """Waiters get it in the order in which they came."""
    holders = [Holder(lock, log, name) for name in "abcde"]
    for holder in holders:
        holder.finish()
    assert log == list("abcde")


def test_a_holder_cannot_overtake_who_waits(lock: InstrumentedLock, log: list[str]) -> None:
    """A greenlet that releases and acquires it again without a switch has to wait for the waiter."""

    let_go = gevent.event.Event()

    def twice() -> None:
        with lock:
            let_go.wait()
        with lock:
            log.append("second time")

    greedy = gevent.spawn(twice)
    settle()
    waiter = Holder(lock, log, "waiter")
    let_go.set()
    waiter.finish()
    greedy.get()
    assert log == ["waiter", "second time"]


def test_an_error_inside_frees_it(lock: InstrumentedLock) -> None:
    """The error passes through and the lock is free."""
    with pytest.raises(ZeroDivisionError), lock:
        raise ZeroDivisionError
    with lock:
        pass
    assert lock.stats().acquisitions == 2


def test_a_waiter_killed_in_the_queue_is_passed_over(lock: InstrumentedLock, log: list[str]) -> None:
    """The others keep their places, and the broken-off wait is not counted."""
    first, killed, third = (Holder(lock, log, name) for name in ("first", "killed", "third"))
    killed.greenlet.kill()
    first.finish()
    third.finish()
    assert log == ["first", "third"]
    assert (lock.stats().acquisitions, lock.stats().waits) == (2, 1)


@pytest.mark.parametrize("followed", [True, False])
def test_a_waiter_killed_with_the_lock_in_hand_passes_it_on(
    lock: InstrumentedLock, log: list[str], followed: bool
) -> None:
    """If it was handed over before the killed greenlet could run, the next gets it, or it is free."""
    with lock:
        killed = Holder(lock, log, "killed")
        follower = Holder(lock, log, "follower") if followed else None
        killed.greenlet.kill(block=False)
    settle()
    assert killed.greenlet.ready()
    if follower is not None:
        follower.finish()
    with lock:
        log.append("free")
    assert log == (["follower", "free"] if followed else ["free"])


def test_the_kind_of_lock_is_looked_up_at_construction(lock: InstrumentedLock, log: list[str]) -> None:
    """A lock made after patching waits cooperatively even when it waits after the patch is gone."""
    first, second = Holder(lock, log, "first"), Holder(lock, log, "second")
    assert log == ["first"]
    first.finish()
    second.finish()
    assert log == ["first", "second"]
