"""`odinws.access.rates`: how many pass in any time, and that forgetting gives nobody more."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws.access.rates import Limit, Rates, step

START = 1_000_000.0
limits = st.builds(Limit, st.floats(0.1, 100), st.integers(1, 20))
waits = st.lists(st.floats(0, 3), max_size=60)


def admitted(rates: Rates, client: str, now: float, times: int) -> int:
    """How many of so many at once are admitted."""
    return sum(rates.admit(client, now) == 0.0 for _ in range(times))


# -- one bucket ------------------------------------------------------------------------------------


@given(limits, waits)
def test_no_stretch_of_time_has_more_than_burst_and_rate(limit: Limit, steps: list[float]) -> None:
    """Every stretch, not only from the start."""
    due, now, times = 0.0, START, []
    for wait in steps:
        now += wait
        due, refused = step(due, now, limit)
        if not refused:
            times.append(now)
    for first, last in itertools.combinations(range(len(times)), 2):
        most = limit.burst + (times[last] - times[first]) * limit.per_second
        assert last - first + 1 <= most + 1e-3


@given(limits, waits)
def test_who_waits_as_told_is_admitted(limit: Limit, steps: list[float]) -> None:
    """And not much earlier; a refusal costs nothing."""
    due, now = 0.0, START
    for wait in steps:
        now += wait
        after, seconds = step(due, now, limit)
        if seconds:
            assert after == due
            assert 0 < seconds <= 1 / limit.per_second + 1e-3
            assert step(due, now + seconds * 0.9, limit)[1] > 0 or seconds < 1e-4
            assert step(due, now + seconds, limit)[1] == 0.0
        due = after


@given(limits)
def test_a_full_bucket_has_the_burst(limit: Limit) -> None:
    """Exactly, and again when it has filled up."""
    rates = Rates(limit)
    assert admitted(rates, "203.0.113.9", START, 50) == limit.burst
    again = START + (limit.burst + 1) / limit.per_second
    assert admitted(rates, "203.0.113.9", again, 50) == limit.burst


# -- addresses -------------------------------------------------------------------------------------


def test_addresses_have_buckets_of_their_own() -> None:
    """One that is used up is not another's matter."""
    rates = Rates(Limit(1, 3))
    assert admitted(rates, "203.0.113.9", START, 5) == 3
    assert admitted(rates, "203.0.113.10", START, 5) == 3


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:203.0.113.9", "203.0.113.9", True),
        ("0.0.0.0", "::", False),
        ("unknown", "", True),
    ],
)
def test_what_is_one_client(first: str, second: str, shared: bool) -> None:
    """An IPv4 address, or a /64; whatever is no address is one client."""
    rates = Rates(Limit(1, 1))
    assert rates.admit(first, START) == 0.0
    assert (rates.admit(second, START) > 0) is shared


def test_to_ask_counts_nothing() -> None:
    """`wait` says what `admit` would."""
    rates = Rates(Limit(1, 1))
    assert rates.wait("203.0.113.9", START) == 0.0
    assert len(rates) == 0
    assert rates.admit("203.0.113.9", START) == 0.0
    assert rates.wait("203.0.113.9", START) == rates.admit("203.0.113.9", START) == 1.0
    assert Rates(None).wait("203.0.113.9", START) == 0.0


def test_no_limits() -> None:
    """None is none."""
    rates = Rates(None)
    assert admitted(rates, "203.0.113.9", START, 100) == 100
    assert len(rates) == 0


def test_a_limit_among_workers() -> None:
    """Each has its part of the rate and the whole burst."""
    assert Limit(10.0, 20).among(4) == Limit(2.5, 20)


# -- memory ----------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 30), st.floats(0, 0.5)), max_size=200),
    st.builds(Limit, st.sampled_from([1.0, 5.0]), st.integers(1, 4)),
)
def test_forgetting_full_buckets_changes_no_answer(requests: list[tuple[int, float]], limit: Limit) -> None:
    """With room for all that are not full, every answer is that of unbounded memory."""
    rates = Rates(limit, max_addresses=31)
    due: dict[int, float] = {}
    now = START
    for client, wait in requests:
        now += wait
        mine, refused = step(due.get(client, 0.0), now, limit)
        assert rates.admit(f"203.0.113.{client}", now) == refused
        if not refused:
            due[client] = mine
        assert len(rates) <= 31


def test_memory_is_bounded_whatever_comes() -> None:
    """The bucket used longest ago goes: the one that was nearest to full, if all are as busy."""
    rates = Rates(Limit(0.001, 1), max_addresses=100)
    for client in range(1000):
        assert rates.admit(f"10.0.{client >> 8}.{client & 255}", START + client / 1000) == 0.0
        assert len(rates) <= 100
    assert rates.admit("10.0.3.231", START + 1) > 0  # the last one is remembered


def test_refused_requests_keep_no_bucket_alive() -> None:
    """Who is refused again and again is forgotten no later than if it had gone away."""
    rates = Rates(Limit(0.001, 1), max_addresses=2)
    assert admitted(rates, "10.0.0.1", START, 1) == 1
    assert admitted(rates, "10.0.0.2", START, 1) == 1
    assert admitted(rates, "10.0.0.1", START, 50) == 0
    assert len(rates) == 2
    assert admitted(rates, "10.0.0.3", START, 1) == 1
    assert rates.admit("10.0.0.2", START) > 0
    assert rates.admit("10.0.0.1", START) == 0.0


def test_full_buckets_go() -> None:
    """They say nothing, so a quiet server holds none but the last."""
    rates = Rates(Limit(1, 1))
    for client in range(100):
        rates.admit(f"10.0.0.{client}", START)
    assert len(rates) == 100
    for client in range(100):
        rates.admit("10.0.1.1", START + 10 + 2 * client)
    assert len(rates) == 1
