"""`odinws.close_codes`: the table of reasons keeps to RFC 6455 and to what clients are told."""

from __future__ import annotations

import re

import pytest

from odinws.close_codes import CENTRIFUGO, NATIVE, CloseReason

DOCUMENTED = {  # the codes that clients rely on
    "GOING_AWAY": 1001,
    "POLICY": 1008,
    "TOO_BIG": 1009,
    "INTERNAL": 1011,
    "RESTART": 1012,
    "SLOW": 4008,
    "IDLE": 4009,
    "UNAUTHORISED": 4401,
    "FORBIDDEN": 4403,
}


@pytest.mark.parametrize(("name", "code"), DOCUMENTED.items())
def test_documented_codes(name: str, code: int) -> None:
    """The codes of the interface."""
    assert CloseReason[name].code == code


def test_codes_and_labels_are_unique() -> None:
    """A code tells a client one thing to do, and a label is one time series."""
    assert len({reason.code for reason in CloseReason}) == len(CloseReason) - 1
    assert CloseReason.MEMORY.code == CloseReason.SLOW.code
    assert CloseReason.MEMORY.retry_after_seconds == CloseReason.SLOW.retry_after_seconds
    assert len({reason.label for reason in CloseReason}) == len(CloseReason)


@pytest.mark.parametrize("reason", CloseReason, ids=lambda reason: reason.name)
def test_every_reason_can_be_said(reason: CloseReason) -> None:
    """The text fits a close frame, the label is a metric label, the wait is a time."""
    assert len(reason.text.encode()) <= 123
    assert re.fullmatch(r"[a-z_]+", reason.label)
    assert reason.retry_after_seconds is None or 0 <= reason.retry_after_seconds <= 60
    if reason is CloseReason.GONE:
        assert (reason.code, reason.text) == (1006, "")  # never sent
    else:
        assert reason.text
        own = range(4000, 5000) if reason in NATIVE else range(3000, 4000)
        assert reason.code in {*range(1000, 1004), *range(1007, 1015), *own}


def test_who_comes_back() -> None:
    """Whoever made a mistake or has no right stays away; whoever met our limits or our end returns."""
    away = {reason for reason in NATIVE if reason.retry_after_seconds is None}
    assert away == {
        CloseReason.PROTOCOL,
        CloseReason.UNSUPPORTED,
        CloseReason.BAD_TEXT,
        CloseReason.POLICY,
        CloseReason.TOO_BIG,
        CloseReason.UNAUTHORISED,
        CloseReason.FORBIDDEN,
    }
    assert {reason for reason in away if reason.another_token} == {CloseReason.UNAUTHORISED}
    assert not any(reason.another_token for reason in set(CloseReason) - away)


@pytest.mark.parametrize("reason", list(CENTRIFUGO), ids=lambda reason: reason.name)
def test_centrifugos_codes(reason: CloseReason) -> None:
    """An SDK comes back where a native client does; for another token it is asked apart."""
    code, text = CENTRIFUGO[reason]
    assert 3000 <= code < 4000 or reason is CloseReason.TOO_BIG
    assert 0 < len(text) < 60
    comes_back = reason.retry_after_seconds is not None or reason.another_token
    assert (3000 <= code < 3500) == comes_back
