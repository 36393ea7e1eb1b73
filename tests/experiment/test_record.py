"""Records are kept, and read back as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from odinws.experiment.kinds import End, Run, Second, Trial
from odinws.experiment.record import FILE, RecordError, read, writing
from tests.experiment.synthetic import as_read, plan, run


def _written(directory: Path) -> Path:
    with writing(directory) as write:
        for record in run(plan(), seed=1):
            write(record)
    return directory / FILE


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """All kinds, in their order."""
    _written(tmp_path / "new" / "directory")
    assert read(tmp_path / "new" / "directory") == as_read(run(plan(), seed=1))


def test_each_line_is_there_at_once(tmp_path: Path) -> None:
    """A run that is killed leaves all it had."""
    records = run(plan(), seed=1)
    with writing(tmp_path) as write:
        for record in records[:5]:
            write(record)
        assert len(read(tmp_path).seconds) == 4


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_a_cut_last_line(tmp_path: Path, cut: int) -> None:
    """It is left out, and the run is partial, since its last record is missing."""
    path = _written(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])
    records = read(tmp_path)
    assert len(records.trials) == 12
    if cut > 1:  # the first byte cut is the line end alone
        assert records.end == End(status="partial", why="the run was cut off")
        assert not records.complete


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    """Only the last one may be cut: elsewhere somebody has been at the file."""
    path = _written(tmp_path)
    lines = path.read_bytes().split(b"\n")
    lines[2] = lines[2][:-5]
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(RecordError, match=rf"^{path}: line 3: [^\n]+$"):
        read(tmp_path)


@pytest.mark.parametrize(
    "line", [b'{"kind": "secnd"}', b'{"kind": "trial", "round": "x"}', b"\xff\xfe", b"[1]", b'{"round": 1}']
)
def test_lines_that_are_no_records(tmp_path: Path, line: bytes) -> None:
    """Each is an error with its number."""
    path = _written(tmp_path)
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(RecordError, match="line 231: "):
        read(tmp_path)


def test_no_run(tmp_path: Path) -> None:
    """A directory without records, an empty file, and one that begins with something else."""
    with pytest.raises(RecordError, match="experiment run"):
        read(tmp_path)
    (tmp_path / FILE).write_bytes(b"")
    with pytest.raises(RecordError, match="line 1: expected"):
        read(tmp_path)
    (tmp_path / FILE).write_bytes(b'{"kind": "end", "status": "complete"}\n')
    with pytest.raises(RecordError, match="line 1: expected"):
        read(tmp_path)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A directory has one run."""
    before = _written(tmp_path).read_bytes()
    with pytest.raises(RecordError, match="a run is here already"), writing(tmp_path):
        pytest.fail("there is a run already")
    assert (tmp_path / FILE).read_bytes() == before


def test_the_shape_of_a_line(tmp_path: Path) -> None:
    """Others read this file too: one object per line, typed by its kind."""
    lines = _written(tmp_path).read_text().splitlines()
    kinds = {Run: '{"kind":"run",', Second: '{"kind":"second",', Trial: '{"kind":"trial",'}
    for record, line in zip(run(plan(), seed=1), lines, strict=True):
        assert line.startswith(kinds.get(type(record), '{"kind":"end","status":"complete"'))
