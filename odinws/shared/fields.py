"""How a field of shared memory is declared: once, with all there is to say of it. Pure.

    @shared_struct
    class Row(ctypes.Structure):
        pid: int  # a word of memory, shown nowhere
        greenlets: int = gauge("ws_greenlets", "Greenlets of the worker.", stats="greenlets")

The layout of the memory, the families of `/metrics`, their page in the docs and `/stats` are made of this.
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cache, cached_property
from typing import (
    Annotated,
    Any,
    ClassVar,
    ParamSpec,
    TypeAlias,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

Counts: TypeAlias = ctypes.Array[ctypes.c_uint64]
Times: TypeAlias = ctypes.Array[ctypes.c_double]
UNITS = ("seconds", "bytes", "cores", "ratio")
_WORDS: dict[Any, Any] = {int: ctypes.c_uint64, float: ctypes.c_double}
_P = ParamSpec("_P")
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
        values: of labels of its own; its field is then an array, with an element for each.
    """

    name: str
    text: str
    labels: tuple[str, ...] = ()
    _: KW_ONLY
    field: str = ""
    values: Sequence[str | tuple[str, ...]] = ()

    kind: ClassVar[str]
    end: ClassVar[str] = ""

    @property
    def unit(self) -> str:
        """One of `UNITS`, with which the name ends; "": it has none."""
        last = self.name.rpartition("_")[2]
        return last if last in UNITS else ""

    @property
    def shown_name(self) -> str:
        """As it stands in a query."""
        return self.name + self.end

    @property
    def length(self) -> int:
        """How many elements there are."""
        return len(self.values)

    @cached_property
    def elements(self) -> tuple[tuple[str, ...], ...]:
        """The values of the labels of each element."""
        return tuple((value,) if isinstance(value, str) else value for value in self.values)


class Counter(Metric):
    """What only grows."""

    kind = "counter"
    end = "_total"


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

    @property
    def length(self) -> int:
        """How many buckets there are."""
        return len(self.bounds) + 1

    @cached_property
    def estimates(self) -> dict[str, float]:
        """The quantiles by their names in `/stats`, as `p99_9_seconds`."""
        end = f"_{self.unit}" if self.unit else ""
        return {f"p{100 * share:g}".replace(".", "_") + end: share for share in self.quantiles}

    def sum_of(self, struct: object) -> float:
        """The sum of what was observed."""
        total: float | ctypes.Array[Any] = getattr(struct, self.sum_field)
        return sum(total) if isinstance(total, ctypes.Array) else total


def _in_class(kind: Callable[_P, Shown]) -> Callable[_P, Any]:
    """The same for the body of a class, where a field has the type of its value."""
    return kind


counter = _in_class(Counter)
gauge = _in_class(Gauge)
histogram = _in_class(Histogram)
stat = _in_class(Shown)


def shared_struct(cls: type[_Struct]) -> type[_Struct]:
    """Lay a structure out as its annotations say, and those of the classes it inherits from.

    An `int` is an unsigned word and a `float` a double; `Counts` and `Times` have an element for each of the
    metric's values or buckets; a structure is itself, and a type of ctypes in `Annotated` is taken as it is.
    """
    declared = shown(cls)  # now: ctypes puts its descriptors into the place of these
    hints = get_type_hints(cls, include_extras=True)
    names = [name for base in cls.__mro__ for name in inspect.get_annotations(base)]
    cls._fields_ = [(name, _memory(hints[name], declared.get(name))) for name in names]
    return cls


@cache
def shown(cls: type) -> Mapping[str, Shown]:
    """What is declared of the fields of a class and of those it inherits from; a metric knows its field."""
    return {
        name: replace(value, field=name) if isinstance(value, Metric) else value
        for base in cls.__mro__
        for name, value in vars(base).items()
        if isinstance(value, Shown)
    }


def metrics(cls: type) -> tuple[Metric, ...]:
    """The metrics among these."""
    return tuple(value for value in shown(cls).values() if isinstance(value, Metric))


def _memory(hint: Any, declared: Any) -> Any:
    """The type of ctypes that an annotation stands for."""
    if get_origin(hint) is Annotated:
        return get_args(hint)[1]
    if get_origin(hint) is ctypes.Array:
        (element,) = get_args(hint)
        return element * declared.length
    return _WORDS.get(hint, hint)
