"""What a run has measured: `records.jsonl`, one value per line, typed by its "kind".

A line is written in one piece and flushed, so a run that is cut off leaves all it had. The reader takes a
last line that is cut; any other line that can't be read is an error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from odinws.errors import OdinError
from odinws.experiment.kinds import End, Record, Records, Run, Second, Trial

FILE = "records.jsonl"


class RecordError(OdinError):
    """The records of a run are missing, or are no records."""


@contextlib.contextmanager
def writing(directory: Path) -> Iterator[Callable[[Record], object]]:
    """Give a function that appends a record to a file in `directory`, which is made if need be.

    Raises RecordError when there are records already, and OSError when the directory can't be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    encoder, path = msgspec.json.Encoder(), directory / FILE
    try:
        file = path.open("xb", buffering=0)
    except FileExistsError:
        text = f"{path}: a run is here already: take another directory, or remove this one"
        raise RecordError(text) from None
    with file:
        yield lambda record: file.write(encoder.encode(record) + b"\n")


def read(directory: Path) -> Records:
    """Read a run. Raises RecordError: there is none, or a line other than a cut last one is no record."""
    path = directory / FILE
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}: `experiment run --out {directory}` makes it") from None
    found = list(_records(path, content))
    if not found or not isinstance(found[0], Run):
        raise RecordError(f'{path}: line 1: expected the record of kind "run" that begins a run')
    ends = [record for record in found if isinstance(record, End)]
    return Records(
        run=found[0],
        seconds=[record for record in found if isinstance(record, Second)],
        trials=[record for record in found if isinstance(record, Trial)],
        end=ends[-1] if ends else End(status="partial", why="the run was cut off"),
    )


def _records(path: Path, content: bytes) -> Iterator[Record]:
    decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)
    lines = content.split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if number == len(lines):  # without its line end: the run was cut off while it wrote
                return
            raise RecordError(f"{path}: line {number}: {error}") from None
