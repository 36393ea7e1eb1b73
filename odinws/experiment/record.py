"""What a run has measured: `records.jsonl`, one value per line, typed by its "kind".

A line is written in one piece and flushed, so a run that is cut off leaves all it had. The reader takes a
last line that is cut; any other line that can't be read is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self

import msgspec

from odinws.errors import OdinError
from odinws.experiment.kinds import End, Record, Records, Run, Second, Trial

FILE = "records.jsonl"


class RecordError(OdinError):
    """The records of a run are missing, or are no records."""


class Writer:
    """Appends records to a file in `directory`, which is made if need be; each is flushed at once.

    Raises:
        RecordError: there are records already: nothing is overwritten.
        OSError: the directory can't be written.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            self._file: BinaryIO = (directory / FILE).open("xb")
        except FileExistsError:
            text = f"{directory / FILE}: a run is here already: take another directory, or remove this one"
            raise RecordError(text) from None
        self._encoder = msgspec.json.Encoder()

    def write(self, record: Record) -> None:
        """Append one line."""
        self._file.write(self._encoder.encode(record) + b"\n")
        self._file.flush()

    def close(self) -> None:
        """Nothing can be written any more. Any number of times."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
