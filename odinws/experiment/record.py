"""What a run has measured: `records.jsonl`, one value per line, typed by its "kind".

A line is written in one piece and flushed, so a run that is cut off leaves all it had. The reader takes a
last line that is cut; any other line that can't be read is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self

import msgspec
from msgspec import Struct, field

from odinws.errors import OdinError
from odinws.experiment.plan import Plan

FILE = "records.jsonl"


class RecordError(OdinError):
    """The records of a run are missing, or are no records."""


class Machine(Struct, frozen=True, kw_only=True):
    """Where a run took place.

    Attributes:
        cpu: its model.
        cores: usable by the run.
        kernel: its release.
        memory: bytes.
    """

    cpu: str
    cores: int
    kernel: str
    memory: int


class Run(Struct, frozen=True, kw_only=True, tag_field="kind", tag="run"):
    """The first line: what was to be done, where, and with what.

    Attributes:
        started: ISO 8601, with its zone.
        order: of the trials, as (round, arm).
        versions: python, odinws, gevent, gunicorn, nats-server, locust and so on.
        settings: by arm, the whole environment that its server was given.
    """

    plan: Plan
    started: str
    seed: int
    order: list[tuple[int, str]]
    machine: Machine
    versions: dict[str, str]
    settings: dict[str, dict[str, str]]


class Second(Struct, frozen=True, kw_only=True, tag_field="kind", tag="second"):
    """One second of a trial.

    Attributes:
        round: from 0.
        order: place of the arm in its round, from 0.
        second: from 0 at the start of measuring; negative while warming up.
        values: by measure, and by whatever else is worth a picture; what has no (finite) value is left out.
    """

    round: int
    order: int
    arm: str
    second: int
    values: dict[str, float]


class Histogram(Struct, frozen=True):
    """Counts between bounds.

    Attributes:
        bounds: upper ends, rising.
        counts: one for each bound, and one more for what is above the last.
    """

    bounds: list[float]
    counts: list[int]


class Swarm(Struct, frozen=True, kw_only=True):
    """How the load was doing.

    Attributes:
        cpu_percent: of its busiest process; 100 is one core.
        limited: whether it, and not the server, may have set the pace.
        why: in words; "" if it was not.
    """

    cpu_percent: float = 0.0
    limited: bool = False
    why: str = ""


class Assigned(Struct, frozen=True, kw_only=True):
    """What a trial was given, so that arms can be seen to have got the same.

    Attributes:
        connections: that held while it was measured.
        messages_published: while it was measured.
        first_seq, last_seq: of these in the feed; 0 where there were none.
    """

    connections: int = 0
    messages_published: int = 0
    first_seq: int = 0
    last_seq: int = 0


class Trial(Struct, frozen=True, kw_only=True, tag_field="kind", tag="trial"):
    """One trial of one arm, at its end.

    Attributes:
        problem: why it is not "ok"; "" if it is.
        values: by measure, over all that was measured; what has no (finite) value is left out.
        histograms: by name, such as "delivery", bounds in ms.
        counts: by name, exact.
    """

    round: int
    order: int
    arm: str
    status: Literal["ok", "failed", "interrupted"]
    problem: str = ""
    values: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    swarm: Swarm = field(default_factory=Swarm)
    assigned: Assigned = field(default_factory=Assigned)


class End(Struct, frozen=True, kw_only=True, tag_field="kind", tag="end"):
    """The last line. A run without it is partial."""

    status: Literal["complete", "partial"]
    why: str = ""


Record = Run | Second | Trial | End


class Records(Struct, frozen=True, kw_only=True):
    """A run as it was read.

    Attributes:
        seconds, trials: in the order of their lines.
        end: also where the file has none: then it says that the run was cut off.
    """

    run: Run
    seconds: list[Second]
    trials: list[Trial]
    end: End

    @property
    def complete(self) -> bool:
        """Whether all that was planned was done."""
        return self.end.status == "complete"


class Writer:
    """Appends records to a file, each flushed at once.

    Args:
        directory: where; it is made if need be.

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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read(directory: Path) -> Records:
    """Read a run.

    Raises:
        RecordError: there is none, or a line other than a cut last one is no record; the text is one line.
    """
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
