"""How a field of shared memory is declared: an annotation that says all there is to say of it. Pure.

    @shared_struct
    class Row(ctypes.Structure):
        pid: int  # a word of memory, shown nowhere
        greenlets: Annotated[int, Gauge("ws_greenlets", "Greenlets at work.", stats="greenlets")]

The layout of the memory, the families of `/metrics`, their page in the docs and `/stats` are made of this.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cache, cached_property
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

Counts: TypeAlias = ctypes.Array[ctypes.c_uint64]
Times: TypeAlias = ctypes.Array[ctypes.c_double]
Unit = Literal["", "seconds", "bytes", "cores", "ratio"]
_WORDS: dict[Any, Any] = {int: ctypes.c_uint64, float: ctypes.c_double}
_Struct = TypeVar("_Struct", bound=ctypes.Structure)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A field that `/stats` shows.

    Attributes:
        stats: its path there, as in `fan_out.delivered`; "": it has none.
        digits: behind the point, of what is no whole number.
    """

    stats: str = ""
    digits: int = 6


@dataclass(frozen=True)
class Metric(Shown):
    """A family of `/metrics`.

    Attributes:
        name: without `_total` and `_info`; ends with the unit.
        text: what it says, for the docs and for Prometheus.
        labels: in the order of the docs.
        field: where its value is; "": the collector knows.
    """

    name: str
    text: str
    labels: tuple[str, ...] = ()
    _: KW_ONLY
    unit: Unit = ""
    field: str = ""

    kind: ClassVar[str]
    end: ClassVar[str] = ""

    @property
    def shown_name(self) -> str:
        """As it stands in a query."""
        return self.name + self.end


@dataclass(frozen=True)
class Counter(Metric):
    """What only grows.

    Attributes:
        values: of labels of its own; its field is then an array, with an element for each.
    """

    _: KW_ONLY
    values: Sequence[str | tuple[str, ...]] = ()

    kind = "counter"
    end = "_total"

    @cached_property
    def elements(self) -> tuple[tuple[str, ...], ...]:
        """The values of the labels of each element."""
        return tuple((value,) if isinstance(value, str) else value for value in self.values)


class Gauge(Metric):
    """What rises and falls."""

    kind = "gauge"


class Info(Metric):
    """Always 1: what it says is in its labels."""

    kind = "info"
    end = "_info"


@dataclass(frozen=True, kw_only=True)
class Histogram(Metric):
    """How often there was how much; its field is an array, with an element for each bucket.

    Attributes:
        bounds: upper bounds of the buckets but the last.
        sum_field: the field with the sum of all; what is an array there is summed up.
        quantiles: those that `/stats` estimates.
    """

    bounds: tuple[float, ...]
    sum_field: str
    quantiles: tuple[float, ...] = ()

    kind = "histogram"

    def sum_of(self, struct: object) -> float:
        """The sum of what was observed."""
        total: float | ctypes.Array[Any] = getattr(struct, self.sum_field)
        return sum(total) if isinstance(total, ctypes.Array) else total


def shared_struct(cls: type[_Struct]) -> type[_Struct]:
    """Lay a structure out as its annotations say, and those of the classes it inherits from.

    An `int` is an unsigned word and a `float` a double; `Counts` and `Times` have an element for each of the
    metric's values or buckets; a structure is itself, and a type of ctypes in `Annotated` is taken as it is.
    """
    cls._fields_ = [(name, _memory(hint)) for name, hint in _hints(cls).items()]
    return cls


@cache
def shown(cls: type) -> Mapping[str, Shown]:
    """What is shown of a class's fields, by field; a metric knows its field."""
    found: dict[str, Shown] = {}
    for name, hint in _hints(cls).items():
        for note in _notes(hint):
            if isinstance(note, Shown):
                found[name] = replace(note, field=name) if isinstance(note, Metric) else note
    return found


def metrics(cls: type) -> tuple[Metric, ...]:
    """The metrics among these."""
    return tuple(note for note in shown(cls).values() if isinstance(note, Metric))


def _hints(cls: type) -> dict[str, Any]:
    """The annotations of a class, then those of each class it inherits from."""
    hints = get_type_hints(cls, include_extras=True)
    return {name: hints[name] for base in cls.__mro__ for name in inspect.get_annotations(base)}


def _notes(hint: Any) -> tuple[Any, ...]:
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()


def _memory(hint: Any) -> Any:
    """The type of ctypes that an annotation stands for."""
    notes = _notes(hint)
    kind = get_args(hint)[0] if notes else hint
    for note in notes:
        if isinstance(note, type):
            return note
        if get_origin(kind) is ctypes.Array:
            (element,) = get_args(kind)
            return element * (len(note.bounds) + 1 if isinstance(note, Histogram) else len(note.values))
    return _WORDS.get(kind, kind)
