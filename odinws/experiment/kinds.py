"""The kinds of records that a run leaves, one per line of its `records.jsonl`. Pure."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from odinws.experiment.plan import Plan


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
