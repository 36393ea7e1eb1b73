"""`odinws.debug.verbs`: what may be asked, and how a wrong question is answered."""

from __future__ import annotations

import pytest

from odinws.debug.verbs import VERBS, DebugError, read


@pytest.mark.parametrize("name", VERBS)
def test_defaults_are_allowed(name: str) -> None:
    """Each view may be asked for with nothing said, and its defaults are within their own bounds."""
    asked = read(name, {})
    assert (asked.verb, asked.worker, asked.form) == (name, None, VERBS[name].formats[0])
    for key, option in VERBS[name].options.items():
        assert option.read(key, str(asked.options[key])) == asked.options[key]


def test_options_are_read() -> None:
    """Numbers as numbers, a worker by its process id."""
    asked = read("profile", {"seconds": "2.5", "hz": "50", "worker": "77", "format": "html"})
    assert asked == ("profile", {"seconds": 2.5, "hz": 50}, 77, "html")


@pytest.mark.parametrize(
    ("name", "given", "status", "words"),
    [
        ("profile", {"seconds": "121"}, 400, ("seconds", "'121'", "from 0.1 to 120")),
        ("profile", {"seconds": "0"}, 400, ("from 0.1 to 120",)),
        ("profile", {"seconds": "nan"}, 400, ("'nan'",)),
        ("profile", {"hz": "9.5"}, 400, ("hz", "a whole number from 1 to 250")),
        ("profile", {"hz": ""}, 400, ("hz",)),
        ("profile", {"format": "pprof"}, 400, ("format", "speedscope, collapsed, html, json")),
        ("heap", {"frames": "26"}, 400, ("frames", "from 1 to 25")),
        ("connections", {"sort": "name"}, 400, ("sort", "age, channels, outbox")),
        ("connections", {"limit": "1001"}, 400, ("limit", "1 to 1000")),
        ("locks", {"secs": "5"}, 400, ("'secs'", "seconds, worker, format")),
        ("gc", {"worker": "first"}, 400, ("worker", "'first'", "all")),
        ("mutex", {}, 404, ("'mutex'", "profile, heap")),
    ],
)
def test_wrong_questions(name: str, given: dict[str, str], status: int, words: tuple[str, ...]) -> None:
    """The answer names the field, the value, and what is allowed."""
    with pytest.raises(DebugError) as raised:
        read(name, given)
    assert raised.value.status == status
    for word in words:
        assert word in raised.value.message
