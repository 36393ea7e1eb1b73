"""The plan of an experiment, as TOML, read into values that can't be wrong. Pure.

Arms inherit `[feed]` and `[load]`; what they override stands in `[arm.feed]` and `[arm.load]`. A read plan
has the whole feed and load in every arm. `docs/experiments.md` shows a plan.
"""

from __future__ import annotations

import difflib
import random
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from odinws.errors import OdinError
from odinws.experiment.measures import MEASURES, PRIMARY

Value = str | int | float | bool

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$"
_SETTING = re.compile(r"[A-Z][A-Z0-9_]*")
_OWN_SETTING = re.compile(r"WS_(ADDR|DEMO_FEED|SUBJECT_PREFIX)|NATS_(URL|TOKEN|CREDS_FILE|NKEY_FILE)")
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_FIELD = re.compile(r"Object (contains unknown|missing required) field `(.*)`")


class PlanError(OdinError):
    """A plan can't be carried out; one line says why.

    Args:
        file: where it stands.
        path: the field, `arm[1].load.slow`; "" where it is the file as a whole.
        value: what stands there, as Python shows it; "" where nothing does.
        allowed: what would be accepted.
    """

    def __init__(self, file: str, path: str, value: str, allowed: str) -> None:
        shown = f" = {value}" if value else ""
        super().__init__(f"{file}: {path}{shown}{': ' if path else ''}{allowed}")


class Feed(Struct, frozen=True, forbid_unknown_fields=True):
    rate: Annotated[float, Meta(ge=0, le=10_000)] = 19.2  # messages/s over all tokens; 0: no publisher
    tokens: Annotated[int, Meta(ge=1, le=1000)] = 10
    spacing: Literal["burst", "even"] = "burst"  # all tokens at one instant, or at equal distances


class Load(Struct, frozen=True, forbid_unknown_fields=True):
    """What the swarm does to each arm."""

    connections: Annotated[int, Meta(ge=1, le=100_000)] = 2000  # that hold
    ramp: Annotated[float, Meta(gt=0, le=10_000)] = 200.0  # that come per second
    channels: Literal["all", "single", "random"] = "all"  # of each: all five, one of them, three by chance
    churn: Annotated[float, Meta(ge=0, le=10_000)] = 0.0  # that leave and come back per second
    slow: Annotated[float, Meta(ge=0, le=1)] = 0.0  # share that reads slowly
    probes: Annotated[float, Meta(ge=0, le=1000)] = 5.0  # timed connects with a subscription per second
    compression: bool = False  # whether clients offer it
    format: Literal["native", "centrifugo", "protobuf", "sse"] = "native"  # what clients speak


class Arm(Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(pattern=_NAME)]
    settings: dict[str, Value] = field(default_factory=dict)  # variables of the server's environment
    config: Annotated[str, Meta(min_length=1)] = "python:odinws.gunicorn_conf"  # a file, or a module
    baseline: bool = False  # whether the others are set against it
    feed: Feed = field(default_factory=Feed)  # the plan's, with what this arm overrides; so is the load
    load: Load = field(default_factory=Load)

    @property
    def environ(self) -> dict[str, str]:
        """The settings as an environment has them."""
        return {
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in self.settings.items()
        }


class Plan(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: Annotated[str, Meta(pattern=_NAME)]
    question: Annotated[str, Meta(min_length=1, max_length=300)]  # what its report answers
    mode: Literal["in-turn", "together"] = "in-turn"  # the arms one after the other, or all at once
    rounds: Annotated[int, Meta(ge=1, le=200)] = 6  # trials of each arm; fewer show no difference
    warmup_seconds: Annotated[float, Meta(ge=0, le=3600)] = 5.0  # cut away at the start of a trial
    measure_seconds: Annotated[float, Meta(ge=1, le=86_400)] = 15.0  # what follows and counts
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 1  # of all that is random
    primary: str = PRIMARY  # the measure that the answer speaks of first
    # By measure, the smallest relative difference that matters, instead of the usual one.
    minimum_effect: dict[str, Annotated[float, Meta(ge=0, le=100)]] = field(default_factory=dict)
    feed: Feed = field(default_factory=Feed)
    load: Load = field(default_factory=Load)
    arms: Annotated[tuple[Arm, ...], Meta(min_length=2, max_length=32)] = field(name="arm")

    @property
    def baseline(self) -> Arm:
        return next(arm for arm in self.arms if arm.baseline)

    @property
    def others(self) -> tuple[Arm, ...]:
        return tuple(arm for arm in self.arms if not arm.baseline)

    def minimum(self, measure: str) -> float:
        """The smallest relative difference of a measure that matters."""
        return self.minimum_effect.get(measure, MEASURES[measure].minimum)


def parse(text: str, file: str) -> Plan:
    """Read a plan, which errors name `file`. Raises PlanError, whose text is one line."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PlanError(file, "", "", f"this is no TOML: {error}") from None
    # The arms last, so that an error in what they inherit names its origin.
    whole = {key: value for key, value in raw.items() if key != "arm"}
    if "arm" in raw:
        arms = raw["arm"]
        whole["arm"] = [_inherited(arm, whole) for arm in arms] if isinstance(arms, list) else arms
    try:
        plan = msgspec.convert(whole, Plan)
    except msgspec.ValidationError as error:
        raise _error(file, whole, str(error)) from None
    _check(plan, file)
    return plan


def _inherited(arm: Any, plan: Mapping[str, Any]) -> Any:
    """An arm with the plan's `feed` and `load`; what is not a table is an error that msgspec names."""
    if not isinstance(arm, dict):
        return arm
    merged = dict(arm)
    for part in ("feed", "load"):
        own, general = arm.get(part, {}), plan.get(part, {})
        both = isinstance(own, dict) and isinstance(general, dict)
        merged[part] = {**general, **own} if both else own
    return merged


def _check(plan: Plan, file: str) -> None:
    """What one field alone can't say."""
    names = [arm.name for arm in plan.arms]
    for number, arm in enumerate(plan.arms):
        at = f"arm[{number}]"
        if arm.name in names[:number]:
            raise PlanError(file, f"{at}.name", repr(arm.name), "another arm has this name")
        for name, value in arm.settings.items():
            path = f"{at}.settings.{name}"
            if not _SETTING.fullmatch(name):
                raise PlanError(file, path, repr(value), "expected the name of an environment variable")
            if _OWN_SETTING.fullmatch(name):
                raise PlanError(file, path, repr(value), "the experiment sets this one itself: take it out")
    baselines = [arm.name for arm in plan.arms if arm.baseline]
    if len(baselines) != 1:
        value = repr(baselines) if baselines else ""
        raise PlanError(file, "arm", value, "expected `baseline = true` in exactly one arm")
    if plan.primary not in MEASURES:
        raise PlanError(file, "primary", repr(plan.primary), _unknown(plan.primary, MEASURES, "measure"))
    for name, least in plan.minimum_effect.items():
        if name not in MEASURES:
            raise PlanError(file, f"minimum_effect.{name}", repr(least), _unknown(name, MEASURES, "measure"))


def _unknown(name: str, known: Collection[str], what: str) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
    return f"no {what} has this name, {hint}"


def _error(file: str, raw: Mapping[str, Any], text: str) -> PlanError:
    """A complaint of msgspec as ours: with the value, and with what is allowed."""
    complaint, _, path = text.partition(" - at `$")
    path = path.strip(".`").removesuffix("[...]")
    allowed = complaint[:1].lower() + complaint[1:]
    if found := _FIELD.fullmatch(complaint):
        kind, name = found.groups()
        tables: dict[str, type[Struct]] = {"": Plan, "feed": Feed, "load": Load}
        fields = msgspec.structs.fields(tables.get(path.rpartition(".")[2], Arm))
        path = f"{path}.{name}".lstrip(".")
        known = [field.encode_name for field in fields]
        allowed = "must be there" if kind == "missing required" else _unknown(name, known, "field")
    return PlanError(file, path, _shown(raw, path), allowed)


def _shown(raw: Any, path: str) -> str:
    try:
        for name, number in _STEP.findall(path):
            raw = raw[int(number)] if number else raw[name]
    except (KeyError, IndexError, TypeError):
        return ""
    shown = repr(raw)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def sequences(arms: Sequence[str], rounds: int, seed: int) -> list[list[str]]:
    """The order of the arms in each round.

    What drifts over a run (a machine that warms up, a neighbour that wakes) must not fall on one arm. Two go
    ABBA. More go by Williams' squares, drawn by `seed`: in each block every arm stands once in each place,
    and follows each other arm equally often, so far as the rounds fill whole blocks.
    """
    if len(arms) <= 2:
        return [list(arms) if number % 2 == 0 else list(reversed(arms)) for number in range(rounds)]
    chance = random.Random(seed)
    found: list[list[str]] = []
    while len(found) < rounds:
        names = list(arms)
        chance.shuffle(names)
        block = [[names[place] for place in row] for row in _williams(len(names))]
        chance.shuffle(block)
        found += block
    return found[:rounds]


def _williams(size: int) -> list[list[int]]:
    """Rows of a Williams design: `size` of them, twice as many for an odd size.

    The first row is 0, 1, n-1, 2, n-2, …: its steps from one place to the next are all different.
    """
    first = [(step + 1) // 2 if step % 2 else -step // 2 % size for step in range(size)]
    rows = [[(place + shift) % size for place in first] for shift in range(size)]
    return rows if size % 2 == 0 else rows + [row[::-1] for row in rows]
