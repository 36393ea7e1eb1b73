"""What the options take."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable
from pathlib import Path

import pytest

from odinws.swarm.engine import problem_of
from odinws.swarm.options import number, record_problem, share, whole


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        (number, "-1", "'-1' must be a number from 0 on"),
        (number, "nan", "'nan' must be a number from 0 on"),
        (share, "2", "'2' must be a number from 0 to 1"),
        (whole, "1.5", "'1.5' must be a whole number from 1 on"),
        (whole, "0", "'0' must be a whole number from 1 on"),
    ],
)
def test_what_can_not_be(kind: Callable[[str], float], text: str, says: str) -> None:
    """A bad value is shown with what is allowed."""
    with pytest.raises(ArgumentTypeError, match=says):
        kind(text)


def test_what_can_be() -> None:
    """The bounds are allowed."""
    assert (number("0"), share("1"), whole("1")) == (0.0, 1.0, 1)
    assert problem_of("ws://127.0.0.1:3004") == problem_of("ws://host/ws") == ""
    assert problem_of("http://127.0.0.1") != ""


def test_the_path_of_the_record(tmp_path: Path) -> None:
    """It may be left out, and must be a file that can be made."""
    assert record_problem("") == ""
    assert record_problem(str(tmp_path / "new")) == ""
    for path in (tmp_path, tmp_path / "no" / "file"):
        assert f"{str(path)!r} must be a file" in record_problem(str(path))
