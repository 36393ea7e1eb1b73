"""Why connections failed, in words, and what to change."""

from __future__ import annotations

import pytest

from odinws.experiment.causes import advice, in_words, summed

_OVERLOAD = "refused with 503 (overload)"


def test_in_words() -> None:
    """The three most frequent."""
    errors = {"reset while upgrading": 1, _OVERLOAD: 1895, "connect: ECONNREFUSED": 30}
    found = f"1,895 times {_OVERLOAD}, 30 times connect: ECONNREFUSED, once reset while upgrading"
    assert in_words(errors) == found
    assert in_words({**errors, "rejected: forbidden": 2}).endswith(", 2 times rejected: forbidden")


@pytest.mark.parametrize(
    ("cause", "change"),
    [
        (_OVERLOAD, "lower load.ramp"),
        ("no answer to the upgrade within 10 s", "lower load.ramp"),
        ("ended while greeting", "lower load.ramp"),
        ("refused with 503 (capacity)", "WS_MAX_CONNECTIONS"),
        ("refused with 503 (hub_lag)", "WS_ADMISSION_DRY_RUN"),
        ("refused with 429 (rate)", "WS_UPGRADE_RATE"),
        ("refused with 401 (unauthorised)", "the swarm has no token"),
        ("rejected: forbidden", "token.*"),
        ("connect: ECONNREFUSED", "see the logs of this trial"),
    ],
)
def test_what_to_change(cause: str, change: str) -> None:
    """By the most frequent cause; of what is not known the logs tell."""
    assert change in advice({"closed with 1012": 1, cause: 2})


def test_nothing_happened() -> None:
    """Then there are no words."""
    assert in_words({}) == ""
    assert summed([]) == {}
    assert summed([{"a": 1}, {"a": 2, "b": 1}]) == {"a": 3, "b": 1}
