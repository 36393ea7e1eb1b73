"""The kinds of records that a run leaves, one per line of its `records.jsonl`. Pure."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from odinws.experiment.plan import Plan


class Machine(Struct, frozen=True, kw_only=True):
    cpu: str  # its model
    cores: int  # usable by the run
    kernel: str
    memory: int  # bytes


class Run(Struct, frozen=True, kw_only=True, tag_field="kind", tag="run"):
    """The first line: what was to be done, where, and with what."""

    plan: Plan
    started: str  # ISO 8601, with its zone
    seed: int
    order: list[tuple[int, str]]  # of the trials, as (round, arm)
    machine: Machine
    versions: dict[str, str]  # python, odinws, gevent, gunicorn, nats-server, locust and so on
    settings: dict[str, dict[str, str]]  # by arm, the whole environment that its server was given


class Second(Struct, frozen=True, kw_only=True, tag_field="kind", tag="second"):
    round: int  # from 0
    order: int  # position of the arm in its round, from 0
    arm: str
    second: int  # from 0 at the start of measuring; negative while warming up
    values: dict[str, float]  # by measure, and by whatever else is worth a picture; finite ones only


class Histogram(Struct, frozen=True):
    bounds: list[float]  # upper ends, rising
    counts: list[int]  # one for each bound, and one more for what is above the last


class Swarm(Struct, frozen=True, kw_only=True):
    cpu_percent: float = 0.0  # of its busiest process; 100 is one core
    limited: bool = False  # whether it, and not the server, may have set the pace
    why: str = ""


class Assigned(Struct, frozen=True, kw_only=True):
    """What a trial was given while it was measured, so that arms can be seen to have got the same."""

    connections: int = 0
    messages_published: int = 0
    first_seq: int = 0  # of these messages; 0 where there were none
    last_seq: int = 0


class Trial(Struct, frozen=True, kw_only=True, tag_field="kind", tag="trial"):
    round: int
    order: int
    arm: str
    status: Literal["ok", "failed", "interrupted"]
    problem: str = ""  # why it is not "ok"
    values: dict[str, float] = field(default_factory=dict)  # by measure, over all that was measured
    histograms: dict[str, Histogram] = field(default_factory=dict)  # such as "delivery", bounds in ms
    counts: dict[str, int] = field(default_factory=dict)  # exact
    errors: dict[str, int] = field(default_factory=dict)  # of connections, by their cause
    swarm: Swarm = field(default_factory=Swarm)
    assigned: Assigned = field(default_factory=Assigned)


class End(Struct, frozen=True, kw_only=True, tag_field="kind", tag="end"):
    """The last line. A run without it is partial."""

    status: Literal["complete", "partial"]
    why: str = ""


Record = Run | Second | Trial | End


class Records(Struct, frozen=True, kw_only=True):
    """A run as it was read; where the file has no end, that says that the run was cut off."""

    run: Run
    seconds: list[Second]
    trials: list[Trial]
    end: End

    @property
    def complete(self) -> bool:
        return self.end.status == "complete"
