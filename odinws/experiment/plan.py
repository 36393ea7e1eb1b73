"""The plan of an experiment, as TOML, read into values that can't be wrong. Pure.

Arms inherit `[feed]` and `[load]`; what they override stands in `[arm.feed]` and `[arm.load]`. A read plan
has the whole feed and load in every arm. `docs/experiments.md` shows a plan.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from odinws.errors import OdinError
from odinws.experiment.measures import MEASURES, PRIMARY

Value = str | int | float | bool

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$"
_SETTING = re.compile(r"[A-Z][A-Z0-9_]*")
_OWN_SETTINGS = ("WS_ADDR", "NATS_URL", "WS_DEMO_FEED")
_AT = re.compile(r" - at `\$\.?(.*)`$")
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")
_MISSING = re.compile(r"Object missing required field `(.*)`")


class PlanError(OdinError):
    """A plan can't be carried out.

    Attributes:
        file: where it stands.
        path: the field, `arm[1].load.slow`; "" where it is the file as a whole.
        value: what stands there, as Python shows it; "" where nothing does.
        allowed: what would be accepted.
    """

    def __init__(self, file: str, path: str, value: str, allowed: str) -> None:
        shown = f" = {value}" if value else ""
        super().__init__(f"{file}: {path}{shown}{': ' if path else ''}{allowed}")
        self.file = file
        self.path = path
        self.value = value
        self.allowed = allowed


class Feed(Struct, frozen=True, forbid_unknown_fields=True):
    """What is published.

    Attributes:
        rate: messages per second over all tokens; 0: there is no publisher.
        tokens: how many.
        spacing: all tokens at one instant, or at equal distances.
    """

    rate: Annotated[float, Meta(ge=0, le=10_000)] = 19.2
    tokens: Annotated[int, Meta(ge=1, le=1000)] = 10
    spacing: Literal["burst", "even"] = "burst"


class Load(Struct, frozen=True, forbid_unknown_fields=True):
    """What the swarm does to each arm.

    Attributes:
        connections: how many hold.
        ramp: how many come per second.
        channels: what each subscribes to: all five of the set, one of them, or three by chance.
        churn: how many leave and come back per second.
        slow: the share that reads slowly.
        probes: connects with a subscription per second, whose times are taken.
        compression: whether clients offer it.
    """

    connections: Annotated[int, Meta(ge=1, le=100_000)] = 2000
    ramp: Annotated[float, Meta(gt=0, le=10_000)] = 200.0
    channels: Literal["all", "single", "random"] = "all"
    churn: Annotated[float, Meta(ge=0, le=10_000)] = 0.0
    slow: Annotated[float, Meta(ge=0, le=1)] = 0.0
    probes: Annotated[float, Meta(ge=0, le=1000)] = 5.0
    compression: bool = False


class Arm(Struct, frozen=True, forbid_unknown_fields=True):
    """One configuration.

    Attributes:
        settings: variables of the server's environment.
        config: its gunicorn configuration: a file, or `python:` and a module.
        baseline: whether the others are set against it.
        feed: the plan's, with what this arm overrides.
        load: likewise.
    """

    name: Annotated[str, Meta(pattern=_NAME)]
    settings: dict[str, Value] = field(default_factory=dict)
    config: Annotated[str, Meta(min_length=1)] = "python:odinws.gunicorn_conf"
    baseline: bool = False
    feed: Feed = field(default_factory=Feed)
    load: Load = field(default_factory=Load)

    @property
    def environ(self) -> dict[str, str]:
        """The settings as an environment has them."""
        return {name: _text(value) for name, value in self.settings.items()}


class Plan(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An experiment.

    Attributes:
        name: of the experiment.
        question: what its report answers.
        mode: the arms one after the other, or all at once.
        rounds: trials of each arm. A difference can be shown from six on, see `statistics`.
        warmup_seconds: cut away at the start of a trial.
        measure_seconds: what follows and counts.
        seed: of all that is random.
        primary: the measure that the answer speaks of first.
        minimum_effect: by measure, the smallest relative difference that matters, instead of the usual one.
        arms: two or more, one of them the baseline.
    """

    name: Annotated[str, Meta(pattern=_NAME)]
    question: Annotated[str, Meta(min_length=1, max_length=300)]
    mode: Literal["in-turn", "together"] = "in-turn"
    rounds: Annotated[int, Meta(ge=1, le=200)] = 6
    warmup_seconds: Annotated[float, Meta(ge=0, le=3600)] = 5.0
    measure_seconds: Annotated[float, Meta(ge=1, le=86_400)] = 15.0
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 1
    primary: str = PRIMARY
    minimum_effect: dict[str, Annotated[float, Meta(ge=0, le=100)]] = field(default_factory=dict)
    feed: Feed = field(default_factory=Feed)
    load: Load = field(default_factory=Load)
    arms: Annotated[tuple[Arm, ...], Meta(min_length=2, max_length=32)] = field(name="arm")

    @property
    def baseline(self) -> Arm:
        """The arm that the others are set against."""
        return next(arm for arm in self.arms if arm.baseline)

    @property
    def others(self) -> tuple[Arm, ...]:
        """All arms but the baseline."""
        return tuple(arm for arm in self.arms if not arm.baseline)

    def minimum(self, measure: str) -> float:
        """The smallest relative difference of a measure that matters."""
        return self.minimum_effect.get(measure, MEASURES[measure].minimum)


def parse(text: str, file: str) -> Plan:
    """Read a plan.

    Args:
        file: how errors name it.

    Raises:
        PlanError: its text is one line.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PlanError(file, "", "", f"this is no TOML: {error}") from None
    whole = _inherited(raw)
    try:
        plan = msgspec.convert(whole, Plan)
    except msgspec.ValidationError as error:
        raise _error(file, whole, str(error)) from None
    _check(plan, file)
    return plan


def _inherited(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The raw plan with `feed` and `load` in every arm; the arms last, so that an error names its origin."""
    arms = raw.get("arm")
    rest: dict[str, Any] = {key: value for key, value in raw.items() if key != "arm"}
    if not isinstance(arms, list):
        return rest | ({"arm": arms} if "arm" in raw else {})
    return rest | {"arm": [_with_inherited(arm, rest) for arm in arms]}


def _with_inherited(arm: Any, plan: Mapping[str, Any]) -> Any:
    if not isinstance(arm, dict):
        return arm
    merged = dict(arm)
    for part in ("feed", "load"):
        own, general = arm.get(part, {}), plan.get(part, {})
        # What is not a table is an error that msgspec names.
        merged[part] = {**general, **own} if isinstance(own, dict) and isinstance(general, dict) else own
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
            if name in _OWN_SETTINGS:
                raise PlanError(file, path, repr(value), "the experiment sets this one itself: take it out")
    baselines = [arm.name for arm in plan.arms if arm.baseline]
    if len(baselines) != 1:
        value = repr(baselines) if baselines else ""
        raise PlanError(file, "arm", value, "expected `baseline = true` in exactly one arm")
    if plan.primary not in MEASURES:
        raise PlanError(file, "primary", repr(plan.primary), _measures(plan.primary))
    for name, least in plan.minimum_effect.items():
        if name not in MEASURES:
            raise PlanError(file, f"minimum_effect.{name}", repr(least), _measures(name))


def _measures(name: str) -> str:
    close = difflib.get_close_matches(name, MEASURES, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(MEASURES)}"
    return f"no measure has this name, {hint}"


def _error(file: str, raw: Mapping[str, Any], text: str) -> PlanError:
    """A complaint of msgspec as ours: with the value, and with what is allowed."""
    at = _AT.search(text)
    path = at[1] if at else ""
    complaint = text[: at.start()] if at else text
    where = path.removesuffix("[...]")
    if unknown := _UNKNOWN.fullmatch(complaint):
        full = f"{where}.{unknown[1]}" if where else unknown[1]
        fields = _fields(where)
        close = difflib.get_close_matches(unknown[1], fields, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(fields)}"
        return PlanError(file, full, _shown(raw, full), f"no field has this name, {hint}")
    if missing := _MISSING.fullmatch(complaint):
        return PlanError(file, f"{where}.{missing[1]}" if where else missing[1], "", "must be there")
    return PlanError(file, where, _shown(raw, where), complaint[:1].lower() + complaint[1:])


def _fields(path: str) -> list[str]:
    kind: type[Struct] = Plan
    if path.endswith("feed"):
        kind = Feed
    elif path.endswith("load"):
        kind = Load
    elif path.startswith("arm"):
        kind = Arm
    return [found.encode_name for found in msgspec.structs.fields(kind)]


def _shown(raw: Any, path: str) -> str:
    for name, number in _STEP.findall(path):
        try:
            raw = raw[int(number)] if number else raw[name]
        except (KeyError, IndexError, TypeError):
            return ""
    shown = repr(raw)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
