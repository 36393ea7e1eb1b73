"""The fuzzer itself finds what is planted, keeps the least of it, and says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import __main__, campaign, costs
from tests.fuzz.campaign import minimise, trial
from tests.fuzz.corpus import entries, keep
from tests.fuzz.targets import TARGETS
from tests.fuzz.targets.base import Target

SECONDS = 20.0  # far more than it takes


def _fragile(data: bytes) -> str:
    """Breaks where a quote follows a brace, somewhere."""
    at = data.find(b"{")
    if at >= 0 and b'"' in data[at:]:
        raise KeyError("planted")
    return f"{len(data) % 7}"


def test_what_is_planted_is_found(tmp_path: Path) -> None:
    """The least input that fails is kept, and ends the campaign."""
    keep("fragile", b"a long input { without the other sign", tmp_path)
    keep("fragile", b'a long input " without the one', tmp_path)
    told: list[tuple[int, int]] = []
    outcome = campaign.campaign(
        Target("fragile", _fragile), 1, SECONDS, lambda *numbers: told.append(numbers), tmp_path
    )
    finding = outcome.finding
    assert finding is not None
    assert (finding.target, finding.data, repr(finding.error)) == ("fragile", b'{"', "KeyError('planted')")
    assert finding.path.read_bytes() == b'{"'
    assert len(entries("fragile", tmp_path)) == 3
    assert told
    assert outcome.tries >= 1


def test_what_holds_is_told(tmp_path: Path) -> None:
    """Without a finding it ends with its time, and nothing is kept."""
    outcome = campaign.campaign(
        Target("sound", lambda data: "abc"[len(data) % 3]), 1, 0.1, lambda *_: None, tmp_path
    )
    assert outcome.finding is None
    assert outcome.tries > 10
    assert outcome.labels == 3
    assert entries("sound", tmp_path) == []


def test_a_slow_input_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes the CPU too long has broken a promise, too."""
    monkeypatch.setattr(campaign, "SLOW_SECONDS", 0.0)
    label, error = trial(Target("slow", lambda data: f"{len(data) + sum(range(100_000))}"), b"x")
    assert label == "slow"
    assert "of CPU" in str(error)


def _quadratic(data: bytes) -> int:
    """Looks for each brace from each quote on."""
    for at, byte in enumerate(data):
        if byte == 0x22:
            sum(data[at:])
    return 0


def _greedy(data: bytes) -> int:
    """Keeps far more of a quote than was sent."""
    [bytes(data)[:at] for at in range(data.count(b'"'))]
    return 0


@pytest.mark.parametrize(("read", "words"), [(_quadratic, "ms of CPU"), (_greedy, "bytes of memory")])
def test_what_is_dear_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: costs.Read, words: str
) -> None:
    """More than linear in time or in memory: a short such input is kept."""
    monkeypatch.setattr(campaign, "_MEASURED", 1.0)
    monkeypatch.setattr(campaign, "_MINIMISE_SECONDS", 100.0)  # a busy machine is slow
    keep("dear", b'some words and one " in them', tmp_path)
    outcome = campaign.campaign(Target("dear", lambda _: "", read), 1, SECONDS, lambda *_: None, tmp_path)
    assert outcome.finding is not None
    assert isinstance(outcome.finding.error, costs.CostError)
    assert words in str(outcome.finding.error)
    assert b'"' in outcome.finding.data
    assert len(outcome.finding.data) < 10


def test_what_is_charged_may_cost() -> None:
    """An input that is inflated costs what comes of it."""
    costs.check(lambda data: len(bytes(len(data) * 100)), b"x")
    with pytest.raises(costs.CostError, match="bytes of memory"):
        costs.check(lambda data: 0 * len(bytes(len(data) * 100)), b"x")


def test_what_is_repeated() -> None:
    """As long as a request may be, whatever it was."""
    assert costs.repeated(b"ab")[:5] == b"ababa"
    assert len(costs.repeated(b"abc")) == costs.LONG_BYTES
    assert costs.repeated(b"") == b""


@pytest.mark.parametrize(
    ("data", "least"), [(b"x", b"x"), (b"ab" * 50 + b"x" + b"c" * 33, b"x"), (b"xx", b"x"), (b"..x..x", b"x")]
)
def test_the_least_input(data: bytes, least: bytes) -> None:
    """All that is not needed is deleted, wherever it stands."""
    assert minimise(data, lambda less: b"x" in less) == least


def test_the_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """0 while all holds, 1 with the input, its error and its file; both with the seed."""
    monkeypatch.setitem(TARGETS, "origin", Target("origin", lambda data: f"{len(data) % 3}"))
    arguments = ["--seconds", "0.05", "--seed", "77", "--target", "origin"]
    assert __main__.main(arguments, tmp_path) == 0
    assert "seed 77" in capsys.readouterr().out
    monkeypatch.setitem(TARGETS, "origin", Target("origin", _fragile))
    keep("origin", b'{"', tmp_path)
    assert __main__.main([*arguments[:1], "20", *arguments[2:]], tmp_path) == 1
    said = capsys.readouterr().out
    assert "KeyError: 'planted'" in said
    assert "kept as" in said
