"""The swarm of one trial: Locust as a black box, and the file in which it says what it got.

The file has a line of what is constant, then one per second, with all counts since the swarm's start, and a
last one with its judgement about itself.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import msgspec
from msgspec import Struct, field

from odinws import resources
from odinws.errors import OdinError
from odinws.experiment.plan import Load as LoadPlan
from odinws.harness.process import Process
from odinws.harness.server import clean_environ

SCENARIO = "locustfiles/fanout.py"


class SwarmError(OdinError):
    """The swarm is not there, ended by itself, or says what is not understood."""


class Counts(Struct, kw_only=True):
    """Since the swarm's start."""

    attempts: int
    failed: int
    refused: int
    delivered: int
    lost: int
    duplicated: int
    disordered: int
    gaps: int
    reconnects: int


class Line(Counts, kw_only=True):
    t: float  # seconds since 1970
    connected: int  # at this moment
    swarm_cpu_percent: float
    histograms: dict[str, list[int]]  # by name, the counts of the buckets
    errors: dict[str, int] = field(default_factory=dict)  # of connections, by their cause
    final: bool = False
    limited: bool = False  # in the last line: whether the swarm itself was the limit
    why: str = ""


_COUNTS = dict.fromkeys(Counts.__struct_fields__, 0)
NOTHING = msgspec.convert(
    {**_COUNTS, "t": 0.0, "connected": 0, "swarm_cpu_percent": 0.0, "histograms": {}}, Line
)
"""What a swarm has seen before its first line."""


def check() -> None:
    """Raises SwarmError when there is no Locust to start."""
    if importlib.util.find_spec("locust") is None:
        raise SwarmError("Locust is not installed: pip install 'odinws[experiment]'")


class Swarm(Process):
    """`start` it and `end_async` it; `poll` reads what it has said meanwhile in `record`, a new file.

    If nobody ends it, it ends by itself after so many `seconds`.
    """

    def __init__(self, load: LoadPlan, port: int, seconds: float, seed: int, record: Path, log: Path) -> None:
        self._record = record
        self._offset = 0
        self.bounds_ms: list[float] = []  # between the buckets; empty before the first line
        self.lines: list[Line] = []
        super().__init__(_command(load, port, seconds, seed, record), log, environ=clean_environ({}))

    @property
    def last(self) -> Line:
        """The latest line; `NOTHING` before the first."""
        return self.lines[-1] if self.lines else NOTHING

    def poll(self) -> None:
        """Read the lines that are new. Raises SwarmError: it has ended, or a line is not understood."""
        self._read()
        if self.status is not None:
            raise SwarmError(f"the swarm {self.exit_summary()}")

    def verdict(self) -> Line:
        """Its last line, once it has ended. Raises SwarmError when it left none."""
        self._read()
        if not self.last.final:
            raise SwarmError(f"the swarm left no last line: {self.last_words()}")
        return self.last

    def _read(self) -> None:
        try:
            with self._record.open("rb") as file:
                file.seek(self._offset)
                new = file.read()
        except FileNotFoundError:
            return
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            try:
                if not self.bounds_ms:
                    # The last bucket has all that is above the bound before it.
                    self.bounds_ms = msgspec.json.decode(line)["bounds_ms"][:-1]
                else:
                    self.lines.append(msgspec.json.decode(line, type=Line))
            except (msgspec.MsgspecError, LookupError, TypeError) as error:
                raise SwarmError(f"the swarm's record is not understood: {error}: {line[:200]!r}") from error


def difference(before: Line, after: Line, name: str) -> list[int]:
    """What a histogram got between two lines; empty when the swarm keeps none of this name."""
    earlier, later = (line.histograms.get(name, []) for line in (before, after))
    return [b - a for a, b in zip(earlier, later, strict=True)] if earlier else later


def _command(load: LoadPlan, port: int, seconds: float, seed: int, record: Path) -> list[str]:
    options: dict[str, object] = {
        "-f": resources.find(SCENARIO),
        "--users": 1,  # it holds all connections, as many as its process can serve
        "--run-time": f"{math.ceil(seconds)}s",
        "--host": f"ws://127.0.0.1:{port}",
        "--odin-connections": load.connections,
        "--odin-ramp": load.ramp,
        "--odin-mode": load.channels,
        "--odin-churn": load.churn,
        "--odin-slow": load.slow,
        "--odin-probes": load.probes,
        "--odin-format": load.format,
        "--odin-seed": seed,
        "--odin-record": record,
    }
    words = [word for name, value in options.items() for word in (name, str(value))]
    flags = ["--headless", "--skip-log-setup", *(["--odin-compression"] if load.compression else [])]
    return [sys.executable, "-m", "locust", *flags, *words]
