"""`odinws.client.backoff`: when a client comes back, and when not."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odinws.client.backoff import (
    BASE_SECONDS,
    CAP_SECONDS,
    MAX_HINT_SECONDS,
    OTHER_CODE_SECONDS,
    Backoff,
    RefusedError,
    renew_after,
)
from odinws.close_codes import NATIVE, CloseReason
from tests.access.material import NOW, token


@given(attempts=st.integers(0, 100), draw=st.floats(0, 1))
def test_the_wait_is_bounded(attempts: int, draw: float) -> None:
    """From 0 to twice as much each time, and never more than the cap."""
    backoff = Backoff(lambda: draw)
    for attempt in range(attempts):
        assert 0 <= backoff.lost(False).seconds <= min(CAP_SECONDS, BASE_SECONDS * 2**attempt)


@given(seconds=st.floats(0, 100), draw=st.floats(0, 1))
def test_the_servers_hint_is_obeyed(seconds: float, draw: float) -> None:
    """As the server writes it; jitter comes on top."""
    wait = Backoff(lambda: draw).closed(1012, f"server restarts; retry_after={seconds:.1f}", False)
    assert wait.seconds == pytest.approx(round(seconds, 1) + draw * BASE_SECONDS)


@pytest.mark.parametrize(
    ("hint", "seconds"),
    [("1000000000", MAX_HINT_SECONDS), ("9" * 400, MAX_HINT_SECONDS), ("-1", 1), ("inf", 1), ("1e9", 1)],
)
def test_absurd_hints(hint: str, seconds: float) -> None:
    """Large ones are bounded; what is no number is passed over."""
    backoff = Backoff(lambda: 0.0)
    assert backoff.closed(1012, f"server restarts; retry_after={hint}", False).seconds == seconds
    assert backoff.refused(503, hint, "").seconds == (seconds if hint.isdecimal() else 0)


@pytest.mark.parametrize("reason", NATIVE)
def test_every_close_code(reason: CloseReason) -> None:
    """As the one table says."""
    backoff = Backoff(lambda: 0.0)
    if reason.retry_after_seconds is None:
        with pytest.raises(RefusedError):
            backoff.closed(reason.code, reason.text, False)
    else:
        assert backoff.closed(reason.code, reason.text, False).seconds == reason.retry_after_seconds


@pytest.mark.parametrize("code", [1005, 1013, 3000, 4999])
def test_other_close_codes(code: int) -> None:
    """Of proxies, mostly."""
    assert Backoff(lambda: 0.0).closed(code, "", True).seconds == OTHER_CODE_SECONDS


@pytest.mark.parametrize(
    ("status", "header", "wait"),
    [(503, "7", 7), (429, "1", 1), (503, None, 0), (502, "soon", 0), (503, "\u0664", 0)],
)
def test_refusals_that_may_pass(status: int, header: str | None, wait: float) -> None:
    """They are tried again, after the time that is asked for."""
    assert Backoff(lambda: 0.0).refused(status, header, "").seconds == wait


@pytest.mark.parametrize("status", [200, 301, 401, 403, 404, 426])
def test_refusals_for_good(status: int) -> None:
    """They are not."""
    with pytest.raises(RefusedError) as refused:
        Backoff(lambda: 0.0).refused(status, "7", "a token is required")
    assert (refused.value.code, refused.value.message) == (status, "a token is required")


def test_waits_grow_while_nothing_holds() -> None:
    """They begin anew after a connection that lived."""
    backoff = Backoff(lambda: 1.0)
    waits = [backoff.lost(False).seconds for _ in range(8)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert backoff.lost(True).seconds == 0.5
    assert backoff.closed(4008, "slow consumer", False).seconds == 2
    assert backoff.broken("?").seconds == OTHER_CODE_SECONDS + 2
    with pytest.raises(RefusedError, match="1008: no command came"):
        backoff.closed(1008, "no command came", True)


def test_when_a_token_is_renewed() -> None:
    """After four fifths of what is left of it; never, if it does not say."""
    assert renew_after(token(exp=NOW + 100), NOW) == 80
    assert renew_after(token(exp=NOW - 100), NOW) == 1
    absurd = [json.dumps({"exp": float(word)}) for word in ("inf", "-inf", "nan")]
    encoded = [f"a.{base64.urlsafe_b64encode(text.encode()).decode()}.c" for text in absurd]
    for other in (token(exp=...), "x", "a.b.c", "a.!.c", *encoded):
        assert renew_after(other, NOW) is None
