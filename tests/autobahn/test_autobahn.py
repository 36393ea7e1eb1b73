"""The runner's own judgement, which must not call a bad run good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.autobahn import environment
from tests.autobahn.cases import everything, patterns
from tests.autobahn.run import SuiteError, expected
from tests.autobahn.verdict import Verdict
from tests.environments import EnvironmentMissingError


def found(behavior: str, close: str) -> dict[str, Any]:
    """One case of the suite's `index.json`."""
    return {"behavior": behavior, "behaviorClose": close, "duration": 1500}


@pytest.mark.parametrize(
    ("text", "cases"),
    [
        ("1", ["1.*"]),
        ("5-9, 10", ["5.*", "6.*", "7.*", "9.*", "10.*"]),
        ("9.1.*,12.1.3", ["9.1.*", "12.1.3"]),
        ("1-99", everything()),
    ],
)
def test_lists_of_cases(text: str, cases: list[str]) -> None:
    """Sections, ranges of them, and cases; sections without cases are left out of a range."""
    assert patterns(text) == cases


@pytest.mark.parametrize("text", ["", "8", "11", "7-1", "x", "1,", "*", "1-"])
def test_lists_that_name_nothing(text: str) -> None:
    """A part that would run no case is refused, not passed over."""
    with pytest.raises(ValueError, match="section"):
        patterns(text)


@pytest.mark.parametrize(
    ("behavior", "close", "good"),
    [
        ("OK", "OK", True),
        ("INFORMATIONAL", "INFORMATIONAL", True),
        ("OK", "INFORMATIONAL", True),
        ("NON-STRICT", "OK", False),
        ("UNIMPLEMENTED", "OK", False),
        ("FAILED", "OK", False),
        ("OK", "FAILED", False),
        ("OK", "UNCLEAN", False),
        ("OK", "WRONG CODE", False),
    ],
)
def test_judgement(behavior: str, close: str, good: bool) -> None:
    """Only what is right, or left open by the specification, will do, also at the end of the connection."""
    verdict = Verdict.of({"1.1.1": found(behavior, close)}, ["1.1.1"])
    assert (verdict.bad == []) is good
    assert (verdict.informational == ["1.1.1"]) is (good and "INFORMATIONAL" in (behavior, close))


def test_a_case_without_a_result() -> None:
    """The suite passes over cases when the server is gone: that is not good."""
    verdict = Verdict.of({"10.1.1": found("OK", "OK"), "2.1": found("OK", "OK")}, ["2.1", "2.2", "10.1.1"])
    assert verdict.bad == ["2.2 has no result"]
    assert [result.case for result in verdict.results] == ["2.1", "10.1.1"]
    assert verdict.table().splitlines()[0].split() == ["section", "2", "1.5", "s", "1", "OK"]


def test_the_cases_of_a_run() -> None:
    """They are those that the suite names; if it names none, it has not run."""
    assert expected("Ok\nCases = [u'1.1.1', '1.1.2']\nRunning\n") == ["1.1.1", "1.1.2"]
    with pytest.raises(SuiteError, match="no cases"):
        expected("Traceback\n")


def test_no_python_27(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without an interpreter and without pyenv the reason is said, and nothing is skipped."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentMissingError, match=r"needs Python 2\.7"):
        environment.wstest(tmp_path / "cache")
