"""`odinws.admission.guard`: each resource at its bounds, and what holds for every history of load."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws.admission.guard import (
    BURST_SECONDS,
    DWELL_SECONDS,
    LAG_SAMPLES,
    SMOOTHING_SECONDS,
    Decision,
    Guard,
    Limits,
    SustainedLag,
    Usage,
    retry_after,
    smooth,
)
from odinws.close_codes import LOAD_REFUSALS

LIMITS = Limits(max_connections=10_000, max_greenlets=20_000)

spreads = st.floats(0, 1)
usages = st.builds(
    Usage,
    connections=st.integers(0, 9_999),
    cpu_percent=st.floats(0, 400),
    memory_percent=st.floats(0, 94.9),
    greenlets=st.integers(0, 40_000),
    hub_lag_ms=st.floats(0, 10_000),
)
histories = st.lists(usages, min_size=1, max_size=30)  # one a second


def refused(usage: Usage, limits: Limits = LIMITS, spread: float = 0.5) -> Decision:
    """What the first client is told who finds no token."""
    guard = Guard(limits)
    guard.observe(usage, 0.0)
    for _ in range(1000):
        decision = guard.decide(usage.connections, 0.0, spread)
        if decision.reason:
            return decision
    raise AssertionError("nobody was refused")


# -- reasons ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usage", "reason", "text"),
    [
        (Usage(connections=10_000), "capacity", "connections 10000 >= 10000"),
        (Usage(cpu_percent=90.2), "cpu", "CPU 90.2% > 75.0%"),
        (Usage(memory_percent=92), "memory", "memory 92.0% > 90.0%"),
        (Usage(memory_percent=96.1), "memory", "memory 96.1% >= 95.0%"),
        (Usage(greenlets=18_500), "greenlets", "greenlets 18500 > 18000"),
        (Usage(hub_lag_ms=312), "hub_lag", "hub lag 312.0ms > 250.0ms"),
    ],
)
def test_a_refusal_names_its_reason(usage: Usage, reason: str, text: str) -> None:
    """In the form of the predecessor, with the value and the bound that it broke."""
    decision = refused(usage)
    assert (decision.admitted, decision.reason, decision.text) == (False, reason, text)
    assert decision.reason in LOAD_REFUSALS
    assert 1 <= decision.retry_after_seconds <= 30


def test_the_resource_that_presses_most_is_named() -> None:
    """Of several, the one nearest to its full level; the hard limit of memory before all."""
    assert refused(Usage(cpu_percent=80, hub_lag_ms=900)).reason == "hub_lag"
    assert refused(Usage(cpu_percent=94, hub_lag_ms=300)).reason == "cpu"
    assert refused(Usage(cpu_percent=100, hub_lag_ms=5000, memory_percent=95)).reason == "memory"
    assert refused(Usage(connections=10_000, memory_percent=99)).reason == "capacity"


def test_below_its_threshold_the_lower_one_is_named() -> None:
    """What is said is always true."""
    guard = Guard(LIMITS)
    guard.observe(Usage(cpu_percent=90.2), 0.0)
    guard.observe(Usage(cpu_percent=70.0), 1.0)
    assert guard.state.cpu.text == "CPU 70.0% > 65.0%"


@given(usage=usages, spread=spreads)
def test_a_reading_explains_itself(usage: Usage, spread: float) -> None:
    """With pressure there is a text, without there is none and all come in."""
    guard = Guard(LIMITS)
    state = guard.observe(usage, 0.0)
    assert [reading.reason for reading in state.readings] == list(LOAD_REFUSALS)
    for reading in state.readings:
        assert bool(reading.text) == (reading.pressure > 0) == (not reading.healthy)
    if all(reading.healthy for reading in state.readings):
        assert math.isinf(state.rate)
        assert guard.decide(usage.connections, 0.0, spread) == Decision(True)


def test_nothing_is_known_at_the_start() -> None:
    """Before the first observation only the connections count."""
    guard = Guard(LIMITS)
    assert guard.decide(9_999, 0.0, 0.5).admitted
    assert guard.decide(10_000, 0.0, 0.5).reason == "capacity"
    assert all(reading.healthy for reading in guard.state.readings)


def test_a_threshold_of_100_switches_the_cpu_off() -> None:
    """It is shown, and does not count."""
    guard = Guard(Limits(max_connections=10, max_greenlets=100, cpu_percent=100))
    cpu = guard.observe(Usage(cpu_percent=400), 0.0).cpu
    assert (cpu.value, cpu.threshold, cpu.healthy, cpu.pressure) == (400, 100, True, 0)
    assert math.isinf(guard.state.rate)


@pytest.mark.parametrize(
    ("enter", "leave", "full"), [(0.2, 0.1, 80.04), (10, 5, 82), (50, 40, 90), (75, 65, 95), (99, 89, 99.8)]
)
def test_every_cpu_threshold_has_its_levels(enter: float, leave: float, full: float) -> None:
    """The lower one is 10 points below, or half; the full one leaves a fifth of what is above."""
    guard = Guard(Limits(max_connections=10, max_greenlets=100, cpu_percent=enter))
    assert guard.observe(Usage(cpu_percent=enter), 0.0).cpu.healthy
    assert guard.observe(Usage(cpu_percent=full + 0.001), 10.0).cpu.pressure == 1
    assert guard.observe(Usage(cpu_percent=full - 0.001), 20.0).cpu.pressure < 1
    assert not guard.observe(Usage(cpu_percent=leave + 0.001), 30.0).cpu.healthy
    assert guard.observe(Usage(cpu_percent=leave), 40.0).cpu.healthy


# -- hysteresis and dwell --------------------------------------------------------------------------


def test_it_stays_unhealthy_until_below_the_lower_threshold() -> None:
    """75 in, 65 out."""
    guard = Guard(LIMITS)
    seen = []
    for second, cpu in enumerate([75, 75.1, 70, 66, 65.1, 66, 70, 65.1, 65, 70, 75]):
        seen.append(guard.observe(Usage(cpu_percent=cpu), float(second)).cpu.healthy)
    assert seen == [True, *[False] * 7, True, True, True]


def test_a_state_lasts_its_dwell() -> None:
    """Neither health nor illness comes back at once; the door goes by the value all the same."""
    guard = Guard(LIMITS)
    assert not guard.observe(Usage(cpu_percent=100), 10.0).cpu.healthy
    state = guard.observe(Usage(cpu_percent=0), 10.0 + DWELL_SECONDS - 0.1)
    assert (state.cpu.healthy, state.rate) == (False, math.inf)
    assert guard.observe(Usage(cpu_percent=0), 10.0 + DWELL_SECONDS).cpu.healthy
    state = guard.observe(Usage(cpu_percent=100), 10.1 + DWELL_SECONDS)
    assert (state.cpu.healthy, state.rate) == (True, LIMITS.floor)


@given(history=histories)
def test_changes_of_health_are_a_dwell_apart(history: Sequence[Usage]) -> None:
    """Whatever the load does: no flutter."""
    guard = Guard(LIMITS)
    changed: dict[str, float] = {}
    before = guard.state
    for second, usage in enumerate(history):
        state = guard.observe(usage, float(second))
        for was, now in zip(before.readings[1:], state.readings[1:], strict=True):
            if was.healthy != now.healthy:
                assert second - changed.get(now.reason, -math.inf) >= DWELL_SECONDS
                changed[now.reason] = second
        before = state


def test_memory_is_shut_at_once_at_its_hard_limit() -> None:
    """No dwell holds there: the rate is 0, and health shows it."""
    guard = Guard(LIMITS)
    guard.observe(Usage(memory_percent=92), 0.0)
    guard.observe(Usage(memory_percent=50), 6.0)
    state = guard.observe(Usage(memory_percent=95), 7.0)
    assert (state.rate, state.memory.healthy, state.memory.blocked) == (0.0, False, True)
    assert not guard.decide(0, 100.0, 0.5).admitted
    guard.observe(Usage(memory_percent=50), 101.0)
    assert guard.decide(0, 101.0, 0.5).admitted


# -- the rate --------------------------------------------------------------------------------------


@given(low=st.floats(0, 1), high=st.floats(0, 1), workers=st.integers(1, 256))
def test_the_rate_falls_with_pressure_and_not_below_the_floor(low: float, high: float, workers: int) -> None:
    """More load never admits more, and each worker has at least one token a second."""
    low, high = sorted((low, high))
    limits = Limits(max_connections=10, max_greenlets=100, workers=workers)
    assert limits.rate(low) >= limits.rate(high) >= limits.floor >= workers


@given(first=usages, more=usages, healthy=st.booleans())
def test_the_rate_falls_with_load(first: Usage, more: Usage, healthy: bool) -> None:
    """In every resource, from either state."""
    second = Usage(
        cpu_percent=max(first.cpu_percent, more.cpu_percent),
        memory_percent=max(first.memory_percent, more.memory_percent),
        greenlets=max(first.greenlets, more.greenlets),
        hub_lag_ms=max(first.hub_lag_ms, more.hub_lag_ms),
    )
    rates = []
    for usage in (first, second):
        guard = Guard(LIMITS)
        if not healthy:
            guard.observe(Usage(0, 400, 94, 40_000, 10_000), 0.0)
        rates.append(guard.observe(usage, 1.0).rate)
    assert rates[0] >= rates[1] >= LIMITS.floor


def test_equal_steps_of_load_divide_the_rate_equally() -> None:
    """From 200/s to 10/s between 65 % and 95 %."""
    guard = Guard(LIMITS)
    guard.observe(Usage(cpu_percent=100), 0.0)
    rates = [guard.observe(Usage(cpu_percent=cpu), 1.0).rate for cpu in (65.000001, 80, 95, 120)]
    assert rates == pytest.approx([200, math.sqrt(2000), 10, 10], rel=1e-4)


@given(history=histories, workers=st.integers(1, 64), dry_run=st.booleans())
def test_nobody_who_asks_is_shut_out_for_two_seconds(
    history: Sequence[Usage], workers: int, dry_run: bool
) -> None:
    """At each single worker, whatever the load, while there are connections and memory."""
    limits = Limits(max_connections=10_000, max_greenlets=20_000, workers=workers, dry_run=dry_run)
    guard = Guard(limits)
    last = 0.0
    for second, usage in enumerate(history):
        guard.observe(usage, float(second))
        for tenth in range(10):
            now = second + tenth / 10
            while guard.decide(usage.connections, now, 0.5).reason == "":
                last = now
                if math.isinf(guard.state.rate):
                    break
            assert now - last < 2.0


@given(history=histories, workers=st.integers(1, 8))
def test_all_workers_together_keep_to_the_rate(history: Sequence[Usage], workers: int) -> None:
    """From any moment on: the sum of the rate, and one burst per worker."""
    limits = Limits(max_connections=10_000, max_greenlets=20_000, workers=workers)
    guards = [Guard(limits) for _ in range(workers)]
    allowed = admitted = 0.0
    for second, usage in enumerate(history):
        rates = {guard.observe(usage, float(second)).rate for guard in guards}
        rate = rates.pop()
        assert not rates  # all see the same
        if math.isinf(rate):
            allowed = admitted = 0.0
            continue
        if not allowed:
            allowed = workers * max(1.0, rate / workers * BURST_SECONDS)
        for quarter in range(4):
            now = second + quarter / 4
            for guard in guards:
                while guard.decide(usage.connections, now, 0.5).admitted:
                    admitted += 1
            assert admitted <= allowed + quarter / 4 * rate + 1e-6
        allowed += rate


def test_idle_workers_do_not_save_tokens() -> None:
    """After an hour there is one burst."""
    guard = Guard(LIMITS)
    guard.observe(Usage(cpu_percent=80), 0.0)
    rate = guard.state.rate
    guard.observe(Usage(cpu_percent=80), 3600.0)
    admitted = 0
    while guard.decide(0, 3600.0, 0.5).admitted:
        admitted += 1
    assert admitted == math.floor(rate * BURST_SECONDS)


def test_a_clock_that_stands_or_goes_back_brings_nothing() -> None:
    """No tokens for negative time."""
    guard = Guard(LIMITS)
    guard.observe(Usage(cpu_percent=100), 10.0)
    while guard.decide(0, 10.0, 0.5).admitted:
        pass
    assert not guard.decide(0, 5.0, 0.5).admitted


# -- dry run, capacity and the return --------------------------------------------------------------


@given(history=histories)
def test_a_dry_run_decides_the_same_and_lets_in(history: Sequence[Usage]) -> None:
    """Reason, text and return are those of the real run."""
    real = Guard(LIMITS)
    dry = Guard(Limits(max_connections=10_000, max_greenlets=20_000, dry_run=True))
    for second, usage in enumerate(history):
        real.observe(usage, float(second))
        dry.observe(usage, float(second))
        for _ in range(20):
            a, b = (guard.decide(usage.connections, float(second), 0.5) for guard in (real, dry))
            assert b.admitted
            assert a.admitted == (not b.reason)
            assert (a.reason, a.text, a.retry_after_seconds) == (b.reason, b.text, b.retry_after_seconds)


@given(connections=st.integers(10_000, 1 << 40), dry_run=st.booleans())
def test_the_connection_cap_always_holds(connections: int, dry_run: bool) -> None:
    """Also in a dry run, also when a slot was lost to another worker; and it takes no token."""
    guard = Guard(Limits(max_connections=10_000, max_greenlets=20_000, dry_run=dry_run))
    guard.observe(Usage(cpu_percent=100), 0.0)
    for _ in range(100):
        assert not guard.decide(connections, 0.0, 0.5).admitted
    assert guard.full(connections, 0.5) == guard.decide(connections, 0.0, 0.5)
    assert guard.decide(9_999, 0.0, 0.5).reason == ""


@given(low=st.floats(0, 1), high=st.floats(0, 1), spread=spreads)
def test_the_return_grows_with_load(low: float, high: float, spread: float) -> None:
    """Within 1 to 30 s."""
    low, high = sorted((low, high))
    assert 1 <= retry_after(low, spread) <= retry_after(high, spread) <= 30


def test_the_return_is_spread() -> None:
    """0 is the earliest, 1 the latest."""
    assert [retry_after(pressure, spread) for pressure in (0, 1) for spread in (0, 1)] == [1, 5, 10, 30]
    assert {retry_after(1, step / 20) for step in range(21)} == set(range(10, 31))


# -- smoothing -------------------------------------------------------------------------------------


def test_a_step_takes_its_time() -> None:
    """63 % after the time constant, 83 % after five samples."""
    assert smooth(0, 100, SMOOTHING_SECONDS) == pytest.approx(63.2, abs=0.1)
    value = 0.0
    for _ in range(5):
        value = smooth(value, 100, 1.0)
    assert value == pytest.approx(83, abs=0.5)


@given(held=st.floats(0, 400), sample=st.floats(0, 400), parts=st.integers(1, 10))
def test_how_often_one_looks_does_not_matter(held: float, sample: float, parts: int) -> None:
    """Many short steps are one long one, and the result lies between."""
    value = held
    for _ in range(parts):
        value = smooth(value, sample, 1 / parts)
    assert value == pytest.approx(smooth(held, sample, 1.0))
    assert min(held, sample) - 1e-9 <= value <= max(held, sample) + 1e-9


# -- lag -------------------------------------------------------------------------------------------

seconds_of = st.lists(st.floats(0, 100), max_size=20)  # lengths of the iterations of one sample


def lag_of(samples: Sequence[Sequence[float]]) -> list[float]:
    """The figure after each sample; the loop sleeps for the rest of each second."""
    lag = SustainedLag()
    return [lag.add(sum(s * s for s in lengths), max(1.0, sum(lengths))) for lengths in samples]


@given(stalls=st.lists(st.floats(0, 3600), max_size=LAG_SAMPLES // 2), calm=st.floats(0, 0.05))
def test_no_stall_is_lag_however_long(stalls: Sequence[float], calm: float) -> None:
    """As long as most of the last samples are calm; those before and after are."""
    history = [[calm]] * LAG_SAMPLES + [[stall] for stall in stalls] + [[calm]] * LAG_SAMPLES
    assert max(lag_of(history)) <= calm


@given(length=st.floats(0.01, 60))
def test_who_is_behind_shows_it_from_the_third_sample_on(length: float) -> None:
    """Iterations without a pause between: the lag is their length, until most samples are calm again."""
    behind = [length] * max(1, math.ceil(1 / length))
    lags = lag_of([behind] * 6 + [[]] * 5)
    assert lags == pytest.approx([0.0] * 2 + [length] * 6 + [0.0] * 3)


@given(history=st.lists(seconds_of, min_size=1, max_size=20))
def test_lag_is_never_more_than_the_longest_iteration(history: Sequence[Sequence[float]]) -> None:
    """Of all there were."""
    longest = max((max(lengths, default=0.0) for lengths in history), default=0.0)
    assert all(0 <= lag <= longest * (1 + 1e-9) for lag in lag_of(history))
