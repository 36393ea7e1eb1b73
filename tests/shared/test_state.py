"""`odinws.shared`, with real processes: exact limits, totals that never fall, details that are never torn."""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from odinws.access.rates import Limit
from odinws.close_codes import LOAD_REFUSALS, REFUSALS, CloseReason
from odinws.shared import SLOTS, SharedState
from odinws.shared import state as state_module
from odinws.shared import worker_stats as worker_stats_module
from odinws.shared.counters import CLOSES, DIFFERENCES, STALL_BOUNDS_SECONDS, Counters, add_counters
from odinws.shared.worker_stats import WorkerStats
from tests.fakes import fill, forked, join

DETAILS_BYTES = 4096
STRESS_SECONDS = 0.6


@pytest.fixture
def shared() -> SharedState:
    """A shared state with little room for details."""
    return SharedState(DETAILS_BYTES)


def words(totals: Counters) -> list[float]:
    """All fields as a flat list."""
    flat: list[float] = []
    for name, *_ in Counters._fields_:
        value = getattr(totals, name)
        flat += value if isinstance(value, ctypes.Array) else [value]
    return flat


def until(seconds: float) -> Iterator[int]:
    """Count rounds for so long."""
    end = time.monotonic() + seconds
    for number in itertools.count():
        if time.monotonic() > end:
            return
        yield number


# -- layout ----------------------------------------------------------------------------------------


def test_every_field_is_an_aligned_word() -> None:
    """A reader never sees half of a value: each field is 8 bytes at a multiple of 8."""
    for structure in (WorkerStats, Counters):
        for name, kind, *_ in structure._fields_:
            assert getattr(structure, name).offset % 8 == 0
            assert ctypes.sizeof(kind) % 8 == 0
    assert all(ctypes.addressof(stats) % 8 == 0 for stats in SharedState(DETAILS_BYTES).workers)


def test_nothing_overlaps(shared: SharedState) -> None:
    """All rows, the totals of those who are gone, and all details have memory of their own."""
    for stats in shared.workers:
        ctypes.memset(ctypes.addressof(stats), 0xA5, ctypes.sizeof(WorkerStats))
    departed = shared._gone[0].totals
    fill(departed, itertools.count(1))
    before, started = words(departed), shared.started
    longest = "x" * (DETAILS_BYTES - state_module._MARK_BYTES - 2)
    for slot in range(SLOTS):
        shared.publish_details(slot, longest)
    assert all(bytes(stats) == b"\xa5" * ctypes.sizeof(WorkerStats) for stats in shared.workers)
    assert words(departed) == before
    assert shared.started == started
    assert all(shared.details(slot) == longest for slot in range(SLOTS))


def test_a_new_board_is_empty(shared: SharedState) -> None:
    """Nobody runs, nothing was counted, and it knows when it was made."""
    assert abs(time.monotonic() - shared.started) < 5
    assert shared.living() == []
    assert shared.connections() == 0
    assert not any(words(shared.totals()))
    assert len(shared.workers) == SLOTS
    assert shared.details(0) == {}


def test_pings_and_frames_are_counted() -> None:
    """In their buckets, a bound included; and their sums."""
    stats = WorkerStats()
    for seconds in (0.0, 0.001, 0.3, 99.0):
        stats.observe_ping(seconds)
    stats.count_frames(1, 7)
    stats.count_frames(11, 2)
    stats.count_frames(512, 1)
    totals = stats.totals
    assert [(index, count) for index, count in enumerate(totals.pings) if count] == [(0, 2), (8, 1), (13, 1)]
    assert totals.ping_seconds == pytest.approx(99.301)
    assert [(index, count) for index, count in enumerate(totals.send_frames) if count] == [
        (0, 7),
        (4, 2),
        (9, 1),
    ]
    assert totals.sent_frames == 7 + 22 + 512


def test_reasons_have_counters(shared: SharedState) -> None:
    """Each close reason and each refusal has its own counter, and an unknown one is an error."""
    stats = shared.workers[3]
    for reason in CloseReason:
        stats.closed_by(reason)
    stats.closed_by(CloseReason.SLOW)
    for refusal in REFUSALS:
        stats.refused_by(refusal)
    assert dict(zip(CLOSES, stats.totals.closed, strict=True)) == {
        reason: 2 if reason is CloseReason.SLOW else 1 for reason in CloseReason
    }
    assert list(stats.totals.refused) == [1] * len(REFUSALS)
    with pytest.raises(KeyError):
        stats.refused_by("bogus")


def test_differences_and_dry_runs_have_counters(shared: SharedState) -> None:
    """Each kind its own, in as many as were found; an unknown kind is an error."""
    stats = shared.workers[0]
    for count, kind in enumerate(DIFFERENCES, 1):
        stats.differs(kind, count)
    for reason in LOAD_REFUSALS:
        stats.would_refuse(reason)
    assert list(stats.totals.differences) == list(range(1, len(DIFFERENCES) + 1))
    assert list(stats.totals.would_refuse) == [1] * len(LOAD_REFUSALS)
    with pytest.raises(ValueError, match="not in tuple"):
        stats.differs("bogus", 1)


def test_passes_and_sends_are_counted() -> None:
    """Sums of all of them, and the longest pass, not the last one."""
    stats = WorkerStats()
    for seconds in (0.25, 0.5, 0.125):
        stats.count_pass(seconds)
    stats.count_sends(2, 30, 4, 500)
    stats.count_sends(1, 1, 1, 1)
    totals = stats.totals
    assert (totals.passes, totals.pass_seconds, stats.pass_longest_seconds) == (3, 0.875, 0.5)
    assert sum(totals.pass_times) == 3
    assert (totals.sends, totals.delivered, totals.undelivered, totals.delivered_bytes) == (3, 31, 5, 501)


def test_what_comes_again_is_received() -> None:
    """Each delivery counts, also of a message that is known; published is what the sequence rose by."""
    stats = WorkerStats()
    for published, deliveries in ((1, 1), (3, 1), (1, 2), (0, 1), (0, 1)):
        stats.count_received(published, deliveries)
    totals = stats.totals
    assert (totals.feed_published, totals.feed_received, totals.feed_redelivered) == (5, 6, 3)


@pytest.mark.parametrize(
    ("lag_seconds", "bucket"),
    [(0.0, 0), (0.001, 0), (0.0011, 1), (0.03, 5), (0.035, 6), (10.0, 14), (10.5, 15), (1e6, 15), (-5.0, 0)],
)
def test_lag_is_counted_in_its_bucket(
    monkeypatch: pytest.MonkeyPatch, lag_seconds: float, bucket: int
) -> None:
    """A bound belongs to its bucket, what is above all has one too, and a clock behind makes no debt."""
    taken_ms = 1_700_000_000_000
    now = SimpleNamespace(
        time=lambda: taken_ms / 1000 + lag_seconds - 1e-6
    )  # doubles of this size are coarse
    monkeypatch.setattr(worker_stats_module, "time", now)
    stats = WorkerStats()
    stats.observe_lag(taken_ms, 7)
    assert {index: count for index, count in enumerate(stats.totals.lag) if count} == {bucket: 7}
    assert stats.totals.lag_seconds == pytest.approx(7 * max(0.0, lag_seconds), abs=1e-4)


def test_no_lag_without_messages() -> None:
    """A pass of gaps alone has no time of publication, and nobody reached has none of delivery."""
    stats = WorkerStats()
    stats.observe_lag(0, 5)
    stats.observe_lag(1_700_000_000_000, 0)
    assert not any(words(stats.totals))


def test_stalls_are_counted_in_their_buckets() -> None:
    """What is told is added, and the longest one of all is remembered."""
    stats = WorkerStats()
    buckets = len(STALL_BOUNDS_SECONDS) + 1
    stats.observe_stalls([2, 1] + [0] * (buckets - 3) + [1], 30.0025, 30.0)
    stats.observe_stalls([1] + [0] * (buckets - 1), 0.001, 0.001)
    counts = {index: count for index, count in enumerate(stats.totals.stalls) if count}
    assert counts == {0: 3, 1: 1, buckets - 1: 1}
    assert stats.totals.stall_seconds == pytest.approx(30.0035)
    assert stats.hub_stall_seconds == 30.0


def test_add_totals_adds_every_field() -> None:
    """No field is forgotten, arrays included."""
    into, more = Counters(), Counters()
    fill(into, itertools.count(1))
    fill(more, itertools.count(1000))
    expected = [a + b for a, b in zip(words(into), words(more), strict=True)]
    before = words(more)
    add_counters(into, more)
    assert words(into) == expected
    assert words(more) == before


# -- slots -----------------------------------------------------------------------------------------


def test_claim_gives_each_slot_once(shared: SharedState) -> None:
    """Claimed slots are taken before their worker runs; the one too many is an error."""
    assert [shared.claim() for _ in range(SLOTS)] == list(range(SLOTS))
    assert shared.living() == []
    with pytest.raises(RuntimeError, match=str(SLOTS)):
        shared.claim()


def test_what_a_worker_leaves_is_kept_for_the_next(shared: SharedState) -> None:
    """Its details, for whoever is forked behind it; and all starts are counted."""
    slot = shared.claim()
    shared.publish_details(slot, {"shards": [1]})
    shared.retire(slot)
    assert shared.last_details == {slot: {"shards": [1]}}
    assert shared.details(slot) == {}
    assert shared.claim() == slot
    assert shared.starts == 2


def test_a_buried_slot_can_be_claimed_again(shared: SharedState) -> None:
    """The slot of a worker that is gone is free, also of one that died before it ran; others stay."""
    assert [shared.claim() for _ in range(3)] == [0, 1, 2]
    shared.workers[0].pid = shared.workers[2].pid = 1234
    shared.retire(1)
    assert shared.claim() == 1
    shared.retire(0)
    assert shared.claim() == 0
    assert [index for index, _ in shared.living()] == [2]


def test_bury_keeps_totals_and_clears_the_rest(shared: SharedState) -> None:
    """What a worker counted stays in the totals; its connections, its state and its details go."""
    slot = shared.claim()
    stats = shared.workers[slot]
    stats.pid, stats.connections, stats.subscriptions, stats.accepting, stats.feed_ready = 1, 5, 9, 1, 1
    stats.rss_bytes, stats.cpu_cores, stats.hub_stall_seconds = 7, 0.5, 0.1
    fill(stats.totals, itertools.count(10))
    shared.publish_details(slot, {"a": 1})
    before = words(shared.totals())
    shared.retire(slot)
    assert words(shared.totals()) == before
    assert bytes(stats) == bytes(ctypes.sizeof(WorkerStats))
    assert shared.connections() == 0
    assert shared.details(slot) == {}


def test_totals_sum_all_workers(shared: SharedState) -> None:
    """The whole server: those that run, those that are starting, those that are gone."""
    slots = [shared.claim() for _ in range(4)]
    for slot in slots:
        shared.workers[slot].totals.delivered = 10**slot
    shared.workers[slots[1]].pid = 77
    shared.retire(slots[2])
    assert shared.totals().delivered == 1111


def test_warm_is_when_all_workers_are_ready_at_once(shared: SharedState) -> None:
    """Accepting and fed, all of them, at one time; and for good after that."""
    for slot in range(2):
        shared.workers[shared.claim()].pid = slot + 1
    shared.workers[0].accepting = shared.workers[0].feed_ready = 1
    shared.workers[1].accepting = 1
    assert not shared.is_warm(2)
    shared.workers[0].feed_ready, shared.workers[1].feed_ready = 0, 1
    assert not shared.is_warm(2)
    shared.workers[0].feed_ready = 1
    assert shared.is_warm(2)
    for slot in range(2):
        shared.workers[slot].accepting = 0
    assert shared.is_warm(2)
    assert shared.is_warm(100)


# -- processes -------------------------------------------------------------------------------------


def test_reserve_and_release(shared: SharedState) -> None:
    """A slot is taken while the whole server holds fewer than the limit, and can be given back."""
    ours, others = [shared.workers[shared.claim()] for _ in range(2)]
    others.connections = 2
    assert shared.reserve(ours, 4)
    assert shared.reserve(ours, 4)
    assert not shared.reserve(ours, 4)
    assert not shared.reserve(others, 4)
    SharedState.release(others)
    assert shared.reserve(ours, 4)
    assert (ours.connections, others.connections, shared.connections()) == (3, 1, 4)
    assert not shared.reserve(ours, 2)


@pytest.mark.parametrize("limit", [1, 50, 1000])
def test_processes_reserve_exactly_the_limit(shared: SharedState, limit: int) -> None:
    """Workers that reserve as fast as they can never hold more than the limit, and end with all of it."""

    def worker(stats: WorkerStats) -> None:
        for _ in range(limit + 1):
            if not shared.reserve(stats, limit):
                break
            assert shared.connections() <= limit
        assert shared.connections() == limit
        assert not shared.reserve(stats, limit)

    workers = [shared.workers[shared.claim()] for _ in range(4)]
    join(*[forked(lambda stats=stats: worker(stats)) for stats in workers])  # type: ignore[misc]
    assert shared.connections() == limit
    assert sum(stats.connections for stats in workers) == limit


def test_processes_reserve_and_release(shared: SharedState) -> None:
    """Workers that come and go around the limit keep it at every instant, and lose no slot."""
    limit = 3

    def worker(stats: WorkerStats) -> None:
        held = 0
        for number in until(STRESS_SECONDS):
            if number % 3 and shared.reserve(stats, limit):
                held += 1
                with shared._exclusive():  # slots are only given back meanwhile, so the sum is no fiction
                    assert shared.connections() <= limit
            elif held:
                SharedState.release(stats)
                held -= 1
        for _ in range(held):
            SharedState.release(stats)
        assert stats.connections == 0

    workers = [shared.workers[shared.claim()] for _ in range(3)]
    join(*[forked(lambda stats=stats: worker(stats)) for stats in workers])  # type: ignore[misc]
    assert shared.connections() == 0


def test_a_killed_process_leaves_the_lock_free(shared: SharedState) -> None:
    """A worker that dies while it holds the lock holds nobody up."""

    ours = shared.workers[shared.claim()]
    held, holds = os.pipe()

    def hold() -> None:
        with shared._exclusive():
            os.write(holds, b"!")
            signal.pause()

    pid = forked(hold)
    assert os.read(held, 1) == b"!"
    waiter = forked(lambda: shared.reserve(ours, 10))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    join(waiter)
    os.close(held)
    os.close(holds)
    assert shared.connections() == 1


def test_totals_never_fall(shared: SharedState) -> None:
    """While workers die and are retired, a reader's totals rise or stay: never counted twice, nor lost."""
    for stats in shared.workers[:100]:  # so that a reader takes long
        stats.started_at = 1.0

    def arbiter() -> None:
        for _ in until(STRESS_SECONDS):
            slot = shared.claim()
            fill(shared.workers[slot].totals, itertools.count(1))
            shared.retire(slot)

    pid = forked(arbiter)
    last = words(shared.totals())
    for _ in until(STRESS_SECONDS):
        now = words(shared.totals())
        assert all(a <= b for a, b in zip(last, now, strict=True))
        last = now
    join(pid)
    assert len({value / (index + 1) for index, value in enumerate(words(shared.totals()))}) == 1


# -- upgrades of the whole server ------------------------------------------------------------------


def test_upgrades_are_counted_against_one_rate(shared: SharedState) -> None:
    """A burst at once, then one each interval; who is told to wait was not counted."""
    limit = Limit(2.0, 3)
    assert [shared.spend_upgrade(limit, 50.0) for _ in range(3)] == [0.0] * 3
    assert [shared.spend_upgrade(limit, 50.0) for _ in range(5)] == [pytest.approx(0.5)] * 5
    assert shared.spend_upgrade(limit, 50.4) == pytest.approx(0.1)
    assert shared.spend_upgrade(limit, 50.5) == 0.0
    assert shared.spend_upgrade(limit, 50.5) > 0
    assert [shared.spend_upgrade(limit, 1000.0) for _ in range(3)] == [0.0] * 3, "not more than a burst"
    assert shared.spend_upgrade(limit, 1000.0) > 0


@pytest.mark.parametrize("burst", [1, 40, 1000])
def test_processes_spend_exactly_the_burst(shared: SharedState, burst: int) -> None:
    """Workers that ask at one instant as fast as they can get the burst together, not each."""

    def worker(stats: WorkerStats) -> None:
        for _ in range(burst + 50):
            stats.connections += shared.spend_upgrade(Limit(10.0, burst), 77.0) == 0.0

    workers = [shared.workers[shared.claim()] for _ in range(4)]
    join(*[forked(lambda stats=stats: worker(stats)) for stats in workers])  # type: ignore[misc]
    assert shared.connections() == burst


def test_processes_keep_the_rate(shared: SharedState) -> None:
    """Over a time they get the burst and the rate, by the clock that they share."""
    limit = Limit(300.0, 20)

    def worker(stats: WorkerStats) -> None:
        for _ in until(STRESS_SECONDS):
            stats.connections += shared.spend_upgrade(limit, time.monotonic()) == 0.0

    workers = [shared.workers[shared.claim()] for _ in range(3)]
    began = time.monotonic()
    join(*[forked(lambda stats=stats: worker(stats)) for stats in workers])  # type: ignore[misc]
    seconds = time.monotonic() - began
    admitted = shared.connections()
    assert admitted <= limit.burst + limit.per_second * seconds + 1
    assert admitted >= limit.burst + limit.per_second * STRESS_SECONDS * 0.3  # a core is waited for


# -- leaving one after another ---------------------------------------------------------------------


def test_one_process_leaves_at_a_time(shared: SharedState) -> None:
    """Whoever has the turn keeps it, whatever else it does with the shared state."""
    stats = shared.workers[shared.claim()]

    def refused() -> None:
        assert not shared.claim_leaving()

    assert shared.claim_leaving()
    assert shared.claim_leaving(), "it has it already"
    assert shared.reserve(stats, 10)
    shared.totals()
    join(forked(refused))


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM])
def test_a_turn_falls_with_its_process(shared: SharedState, signal_number: signal.Signals) -> None:
    """A worker that leaves lets the others leave after it, also one that is killed meanwhile."""
    held, holds = os.pipe()

    def hold() -> None:
        signal.signal(signal.SIGTERM, lambda *_: None)
        assert shared.claim_leaving()
        os.write(holds, b"!")
        signal.pause()

    pid = forked(hold)
    assert os.read(held, 1) == b"!"
    assert not shared.claim_leaving()
    os.kill(pid, signal_number)
    os.waitpid(pid, 0)
    assert shared.claim_leaving()
    os.close(held)
    os.close(holds)


def test_processes_take_turns(shared: SharedState) -> None:
    """Never two at once, and each gets it in the end."""
    counter = shared.workers[shared.claim()]

    def worker() -> None:
        while not shared.claim_leaving():
            time.sleep(0.0005)
        counter.pending += 1
        assert counter.pending == 1
        counter.connections += 1
        time.sleep(0.001)
        counter.pending -= 1

    join(*[forked(worker) for _ in range(20)])
    assert counter.connections == 20


def workers(shared: SharedState, count: int) -> list[WorkerStats]:
    """Rows of workers that accept with a feed."""
    workers = [shared.workers[shared.claim()] for _ in range(count)]
    for pid, stats in enumerate(workers, 100):
        stats.pid, stats.accepting, stats.feed_ready = pid, 1, 1
    return workers


def test_a_reload_outdates_those_that_are_there(shared: SharedState) -> None:
    """Those that were forked before it, and not those that come after it."""
    old = workers(shared, 2)
    assert not any(shared.is_outdated(stats) for stats in old)
    shared.mark_reload()
    [young] = workers(shared, 1)
    assert [shared.is_outdated(stats) for stats in (*old, young)] == [True, True, False]
    shared.mark_reload()
    assert shared.is_outdated(young)


def test_a_reload_is_seen_by_other_processes(shared: SharedState) -> None:
    """The arbiter marks it, workers look."""
    [stats] = workers(shared, 1)
    join(forked(shared.mark_reload))
    assert shared.is_outdated(stats)


@pytest.mark.parametrize(
    ("field", "value"),
    [("accepting", 0), ("feed_ready", 0), ("recycling", 1), ("started_at", 1.0), ("pid", 0)],
)
def test_who_is_a_successor(shared: SharedState, field: str, value: float) -> None:
    """One that accepts, has a feed, is young and is to stay; any that lacks one of these is none."""
    [old] = workers(shared, 1)
    shared.mark_reload()
    assert not shared.has_successor(old), "not itself"
    [young] = workers(shared, 1)
    young.pid = 500
    assert shared.has_successor(old)
    setattr(young, field, value)
    assert not shared.has_successor(old)


def test_without_a_feed_nobody_waits_for_one_with_it(shared: SharedState) -> None:
    """While NATS is away the workers of a second reload would wait beside those of the first."""
    [old] = workers(shared, 1)
    shared.mark_reload()
    [young] = workers(shared, 1)
    young.pid, young.feed_ready = 500, 0
    assert not shared.has_successor(old)
    old.feed_ready = 0
    assert shared.has_successor(old)
    young.accepting = 0
    assert not shared.has_successor(old)


def test_ordinals_are_inherited(shared: SharedState) -> None:
    """A new worker has the first place that nobody has who is to stay, whatever slot it gets."""
    workers = [shared.workers[shared.claim()] for _ in range(4)]
    assert [stats.ordinal for stats in workers] == [0, 1, 2, 3]
    workers[2].recycling = 1
    heir = shared.claim()
    assert (heir, shared.workers[heir].ordinal) == (4, 2)
    shared.retire(2)
    shared.retire(1)
    assert shared.workers[shared.claim()].ordinal == 1
    shared.mark_reload()
    assert [shared.workers[shared.claim()].ordinal for _ in range(4)] == [0, 1, 2, 3]


def test_one_that_asked_for_a_successor_waits_for_that(shared: SharedState) -> None:
    """Others that accept are no heirs of its place."""
    old, other = workers(shared, 2)
    old.pid, other.pid = 500, 501
    assert shared.has_successor(old)
    old.recycling = 1
    assert not shared.has_successor(old)
    [heir] = workers(shared, 1)
    heir.pid = 502
    assert heir.ordinal == old.ordinal
    assert shared.has_successor(old)


def test_a_stop_is_told_once_and_for_all(shared: SharedState) -> None:
    """The arbiter says that the whole server ends, and each worker knows."""

    def told() -> None:
        assert shared.is_stopping

    assert not shared.is_stopping
    shared.mark_stop()
    assert shared.is_stopping
    join(forked(told))


# -- details ---------------------------------------------------------------------------------------


def test_details_are_read_as_published(shared: SharedState) -> None:
    """The last ones of each worker, of any JSON kind and any characters."""
    shared.publish_details(0, {"a": [1, 2.5, None, "ü"]})
    shared.publish_details(1, ["other"])
    shared.publish_details(SLOTS - 1, "last")
    assert shared.details(0) == {"a": [1, 2.5, None, "ü"]}
    assert shared.details(1) == ["other"]
    assert shared.details(SLOTS - 1) == "last"
    shared.publish_details(0, {})
    assert shared.details(0) == {}
    assert shared.details(1) == ["other"]


def test_details_that_do_not_fit(shared: SharedState) -> None:
    """The longest that fits is kept; a longer one is replaced by its size, and touches no neighbour."""
    shared.publish_details(1, "neighbour")
    room = DETAILS_BYTES - state_module._MARK_BYTES
    longest = "x" * (room - 2)  # and two quotes
    shared.publish_details(0, longest)
    assert shared.details(0) == longest
    shared.publish_details(0, longest + "x")
    assert shared.details(0) == {"truncated": room + 1}
    assert shared.details(1) == "neighbour"


def test_details_are_never_torn(shared: SharedState) -> None:
    """A reader beside a writer sees one writing or the other, or nothing, never some of both."""
    a, b, c = ({"v": letter * size} for letter, size in (("a", 4000), ("b", 4000), ("c", 10)))

    def writer() -> None:
        for _ in until(STRESS_SECONDS):
            for value in (a, b, c):
                shared.publish_details(0, value)

    pid = forked(writer)
    seen = 0
    for _ in until(STRESS_SECONDS):
        details = shared.details(0)
        assert details in ({}, a, b, c)
        seen += details != {}
    join(pid)
    assert seen


def test_a_write_during_a_read_is_noticed(shared: SharedState) -> None:
    """A second writing of the very same length, half of which was read with the first, is read again."""
    shared.publish_details(0, "a" * 100)
    memory, looks = shared._details._map, itertools.count()

    class Racing:
        """The memory of a reader that another process is faster than, once."""

        def __getitem__(self, part: slice) -> bytes:
            before = memory[part]
            if next(looks) != 1:  # the first look is for the mark, the second for the details
                return before
            shared._details._map = memory
            shared.publish_details(0, "b" * 100)
            shared._details._map = self  # type: ignore[assignment]
            return before[:50] + memory[part][50:]

    shared._details._map = Racing()  # type: ignore[assignment]
    assert shared.details(0) == "b" * 100


@pytest.mark.parametrize("encoded", [b'{"a":', b'"\xff"'])
def test_details_that_make_no_sense_are_none(shared: SharedState, encoded: bytes) -> None:
    """Whatever stands there, a reader gets something it can show."""
    shared._details.write(0, encoded)
    assert shared.details(0) == {}


def test_a_writer_that_died_at_work_leaves_none(shared: SharedState, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker killed in the middle of a write leaves no half of it to be read."""
    shared.publish_details(0, {"old": 1})

    class Dies:
        def pack(self, *_: int) -> bytes:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(state_module, "_MARK", Dies())
        with pytest.raises(KeyboardInterrupt):
            shared.publish_details(0, {"new": 1})
    assert shared.details(0) == {}
    shared.publish_details(0, {"new": 2})
    assert shared.details(0) == {"new": 2}


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of a shared state has no name."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert SharedState(DETAILS_BYTES).details(0) == {}
    assert list(tmp_path.iterdir()) == []
