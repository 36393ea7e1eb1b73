"""Each proof at a reduced size, and what they measure with."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws.swarm import frames
from tests import wire
from tests.protection import drain, kill, overload, ramp, reload, slowloris
from tests.protection.crowd import Guest
from tests.protection.proof import Plan, Proof
from tests.protection.windows import longest_refusal, most_within, share

NOW = 1_000_000.0
times = st.lists(st.integers(0, 100).map(float), max_size=40)


@pytest.mark.parametrize(
    ("run", "plan"),
    [(proof.run, proof.REDUCED) for proof in (ramp, kill, drain, reload, slowloris, overload)],
    ids=["ramp", "kill", "drain", "reload", "slowloris", "overload"],
)
def test_a_proof(run: Callable[[Plan], Proof], plan: Plan) -> None:
    """Every check of it holds."""
    proof = run(plan)
    proof.show()
    assert proof.checks
    assert proof.broken == []


# -- windows ---------------------------------------------------------------------------------------


@given(times, st.integers(1, 50))
def test_most_within(found: list[float], seconds: int) -> None:
    """The largest of the windows that begin at one of the times; none has more."""
    ordered = sorted(found)
    counts = [bisect.bisect_left(ordered, at + seconds) - bisect.bisect_left(ordered, at) for at in ordered]
    assert most_within(found, seconds) == max(counts, default=0)


def test_longest_refusal() -> None:
    """From the first to the last refusal between two admissions; one alone takes no time."""
    assert longest_refusal([], []) == 0.0
    assert longest_refusal([1.0, 2.0], []) == 0.0
    assert longest_refusal([5.0], [1.0, 4.0, 6.0, 6.5]) == 3.0
    assert longest_refusal([0.0, 10.0, 20.0], [11.0, 1.0, 9.5, 19.0]) == 8.5
    assert longest_refusal([0.0, 10.0], [5.0]) == 0.0


@given(times, times)
def test_no_stretch_of_refusals_is_longer_than_two_admissions_apart(
    admitted: list[float], refused: list[float]
) -> None:
    """Whatever lies between."""
    ends = sorted({-1.0, *admitted, 101.0})
    assert longest_refusal(admitted, refused) <= max(b - a for a, b in itertools.pairwise(ends))


def test_share() -> None:
    """Of ten values the fifth is not exceeded by half of them."""
    assert share([], 0.5) == 0.0
    assert share([3.0, 1.0, 2.0], 1.0) == 3.0
    assert share([float(value) for value in range(100)], 0.99) == 99.0


# -- guests ----------------------------------------------------------------------------------------


def guest(*data: bytes) -> Guest:
    """One that is in and has read this."""
    guest = Guest(0)
    guest.opened(NOW)
    for chunk in data:
        guest.read(chunk, NOW)
    return guest


def test_a_guest_that_is_refused() -> None:
    """It knows when it was answered, and when it may come back."""
    head = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\nRetry-After: 7\r\n\r\n"
    answer = frames.answer(head + b"{}")
    assert answer is not None
    found = Guest(0)
    found.refuse(answer, NOW)
    assert (found.admitted, found.answered_at, found.hint_seconds) == (False, NOW, 7.0)


@pytest.mark.parametrize(
    ("text", "hint"), [(b"server restarts; retry_after=2.5", 2.5), (b"slow consumer", None), (b"", None)]
)
def test_a_guest_that_is_sent_away(text: bytes, hint: float | None) -> None:
    """It keeps the close frame and when that came."""
    found = guest(wire.frame(wire.CLOSE, (1012).to_bytes(2, "big") + text, masked=False))
    assert (found.admitted, found.answered_at, found.goodbye_at) == (True, NOW, NOW)
    assert (found.close_code, found.hint_seconds) == (1012, hint)


def test_a_guest_that_nobody_answered() -> None:
    """It is neither in nor refused."""
    found = Guest(0)
    assert (found.admitted, found.answered_at, found.hint_seconds) == (False, 0.0, None)


# -- proofs ----------------------------------------------------------------------------------------


def test_a_proof_shows_what_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    """Facts, checks, and which of them do not hold."""
    proof = Proof("a title")
    proof.fact("a fact", 1234)
    proof.check("it works", True, 1.5)
    assert proof.broken == []
    proof.check("it is fast", False, "slow")
    proof.show()
    shown = capsys.readouterr().out
    assert [check.what for check in proof.broken] == ["it is fast"]
    for word in ("a title", "a fact", "1,234", "it works", "1.50", "it is fast", "slow", "BROKEN"):
        assert word in shown
