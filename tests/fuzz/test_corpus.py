"""Every input that is kept, tried again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.campaign import trial
from tests.fuzz.corpus import CORPUS, entries, keep, name_of
from tests.fuzz.targets import TARGETS

FILES = [(target, path) for target in TARGETS for path in entries(target)]


@pytest.mark.parametrize(("target", "path"), FILES, ids=[f"{target}-{path.name}" for target, path in FILES])
def test_what_is_kept_holds(target: str, path: Path) -> None:
    """Good, bad, or once a failure: what must hold for any input holds for this one."""
    _, error = trial(TARGETS[target], path.read_bytes())
    assert error is None


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_is_whole(target: str) -> None:
    """Each target has inputs to start from, small ones, and none was changed on its way here."""
    found = entries(target)
    assert len(found) >= 5
    for path in found:
        data = path.read_bytes()
        assert path.name == name_of(data)
        assert len(data) < 2048


def test_the_corpus_is_of_targets() -> None:
    """A target that is renamed does not silently leave its inputs behind."""
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)


def test_keeping(tmp_path: Path) -> None:
    """An input has the same file each time, and is found again as it was."""
    first, again = (keep("x", b"\r\n\0", tmp_path) for _ in range(2))
    assert entries("x", tmp_path) == [first] == [again]
    assert first.read_bytes() == b"\r\n\0"
    assert entries("y", tmp_path) == []
