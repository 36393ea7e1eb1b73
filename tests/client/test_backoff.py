"""`odinws.client.backoff`, `journey` and `tokens`: when a client comes back, and when not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odinws.client import backoff, tokens
from odinws.client.errors import RefusedError
from odinws.client.journey import Journey
from odinws.closing import CloseReason
from tests.access.material import NOW, token

draws = st.floats(0, 1)


@given(attempt=st.integers(0, 10_000), draw=draws)
def test_the_wait_is_bounded(attempt: int, draw: float) -> None:
    """From 0 to twice as much each time, and never more than the cap."""
    wait = backoff.jitter(attempt, draw)
    assert 0 <= wait <= min(backoff.CAP_SECONDS, backoff.BASE_SECONDS * 2 ** min(attempt, 30))


@given(seconds=st.floats(0, 100), attempt=st.integers(0, 5), draw=draws)
def test_the_servers_hint_is_obeyed(seconds: float, attempt: int, draw: float) -> None:
    """As the server writes it; jitter comes on top."""
    wait = backoff.after_close(1012, f"server restarts; retry_after={seconds:.1f}", attempt, draw)
    assert wait is not None
    assert wait == pytest.approx(round(seconds, 1) + backoff.jitter(attempt, draw))


@pytest.mark.parametrize("reason", CloseReason)
def test_every_close_code(reason: CloseReason) -> None:
    """As the table of the server says; only a goodbye of its own kind is nobody's fault."""
    wait = backoff.after_close(reason.code, reason.text, 0, 0.0)
    if reason is CloseReason.CLIENT:
        assert wait == 0
    else:
        assert wait == reason.retry_after_seconds


@pytest.mark.parametrize(
    ("status", "header", "wait"),
    [(503, "7", 7), (429, "1", 1), (503, None, 0), (502, "soon", 0), (401, "7", None), (404, None, None)],
)
def test_refusals(status: int, header: str | None, wait: float | None) -> None:
    """What may pass is tried again, after the time that is asked for."""
    assert backoff.after_refusal(status, header, 0, 0.0) == wait


def test_a_journey() -> None:
    """Waits grow while nothing holds, and begin anew after a connection that lived."""
    journey = Journey(lambda: 1.0)
    waits = [journey.lost(False).seconds for _ in range(9)]
    assert waits == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
    assert journey.lost(True).seconds == 0.25
    assert journey.closed(4008, "slow consumer", False).seconds == 1.5
    with pytest.raises(RefusedError, match="1008: no command came"):
        journey.closed(1008, "no command came", True)
    with pytest.raises(RefusedError) as refused:
        journey.refused(401, None, "a token is required")
    assert (refused.value.code, refused.value.message) == (401, "a token is required")


def test_when_a_token_is_renewed() -> None:
    """After four fifths of what is left of it; never, if it does not say."""
    assert tokens.refresh_at(token(exp=NOW + 100), NOW) == NOW + 80
    assert tokens.refresh_at(token(exp=NOW - 100), NOW) == NOW + 1
    for other in (token(exp=...), "x", "a.b.c", "a.!.c"):
        assert tokens.refresh_at(other, NOW) is None
