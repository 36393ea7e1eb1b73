"""The swarm's record is read as it grows, and its histograms are read right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from odinws.experiment.load import NOTHING, Swarm, SwarmError, difference
from odinws.experiment.plan import Load

_LINE = {
    "t": 1.5,
    "connected": 3,
    "attempts": 3,
    "failed": 0,
    "refused": 0,
    "delivered": 7,
    "lost": 0,
    "duplicated": 0,
    "disordered": 0,
    "gaps": 0,
    "reconnects": 0,
    "swarm_cpu_percent": 2.5,
    "swarm_stall_ms": 1.0,
    "histograms": {"delivery": [1, 2, 4]},
    "closed": 0,
}


def _swarm(directory: Path) -> Swarm:
    return Swarm(Load(), 1, 1.0, 1, directory / "record", directory / "log")


def test_lines_are_read_when_they_are_whole(tmp_path: Path) -> None:
    """A line that is being written waits for its end."""
    swarm = _swarm(tmp_path)
    swarm.poll()
    assert swarm.last is NOTHING
    text = json.dumps({"bounds_ms": [1.0, 2.0, 4.0], "names": ["delivery"], "seed": 1}) + "\n"
    text += json.dumps(_LINE) + "\n"
    (tmp_path / "record").write_text(text[:-5])
    swarm.poll()
    assert swarm.bounds_ms == [1.0, 2.0]
    assert swarm.last is NOTHING
    (tmp_path / "record").write_text(text)
    swarm.poll()
    assert swarm.last.delivered == 7
    (tmp_path / "log").write_text("Traceback\nOSError: no room\n")
    with pytest.raises(SwarmError, match=r"left no last line: Traceback \| OSError: no room"):
        swarm.verdict()


def test_a_line_that_is_none(tmp_path: Path) -> None:
    """It is told, not skipped."""
    (tmp_path / "record").write_text("nonsense\n")
    with pytest.raises(SwarmError, match="not understood"):
        _swarm(tmp_path).poll()


def test_difference(tmp_path: Path) -> None:
    """Counts are cumulative; a histogram that nobody keeps is empty."""
    swarm = _swarm(tmp_path)
    head = {"bounds_ms": [1.0, 2.0, 4.0], "names": [], "seed": 1}
    later = {**_LINE, "histograms": {"delivery": [2, 2, 9]}}
    (tmp_path / "record").write_text("".join(json.dumps(line) + "\n" for line in (head, _LINE, later)))
    swarm.poll()
    before, after = swarm.lines
    assert difference(before, after, "delivery") == [1, 0, 5]
    assert difference(NOTHING, after, "delivery") == [2, 2, 9]
    assert difference(before, after, "ack") == []
