"""Settings in words: for the documentation, the command line and error messages."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple, cast

from msgspec import Struct, inspect

_DERIVED_DEFAULTS = {
    "WS_WORKERS": "usable cores",
    "WS_CPU_LIMIT": "the cgroup's, else usable cores",
    "WS_MEMORY_LIMIT": "the cgroup's, else the machine's",
    "WS_CLIENT_MEMORY": "a quarter of WS_MEMORY_LIMIT",
    "WS_MAX_PER_ADDRESS": "half of WS_MAX_CONNECTIONS, or 100",
    "WS_MAX_PER_SUBJECT": "half of WS_MAX_CONNECTIONS, or 100",
    "WS_DEMO_FEED": "with embedded NATS",
}


class Description(NamedTuple):
    """One setting in words.

    Attributes:
        allowed: what it takes.
        default: its default; "" stands for unset.
        about: what it is, with its unit.
    """

    name: str
    allowed: str
    default: str
    about: str


def describe(kind: type[Struct]) -> list[Description]:
    """All settings of a struct, in the order of their definition."""
    described = []
    for field_type in cast("inspect.StructType", inspect.type_info(kind)).fields:
        found = cast("inspect.Metadata", field_type.type)
        about = (found.extra_json_schema or {})["description"]
        default = _DERIVED_DEFAULTS.get(field_type.encode_name)
        if default is None:
            default = "" if field_type.default is None else f"{field_type.default}"
        described.append(Description(field_type.encode_name, _allowed(found.type), default, about))
    return described


@cache
def _public(kind: type[Struct]) -> list[tuple[str, str]]:
    fields = cast("inspect.StructType", inspect.type_info(kind)).fields
    return [
        (field.encode_name, field.name)
        for field in fields
        if not isinstance(cast("inspect.Metadata", field.type).type, inspect.StrType)
    ]


def public(settings: Struct) -> list[tuple[str, str]]:
    """Names and values of all settings that anybody may see: texts may hold secrets and paths."""
    return [(name, str(getattr(settings, field))) for name, field in _public(type(settings))]


def expected(kind: type[Struct], name: str) -> str:
    """What a setting takes and what it is, in words."""
    setting = next(setting for setting in describe(kind) if setting.name == name)
    return f"expected {setting.allowed} ({setting.about})"


def _allowed(kind: inspect.Type) -> str:
    match kind:
        case inspect.LiteralType(values=values):
            return f"one of {', '.join(map(str, values))}"
        case inspect.IntType(ge=least, le=most):
            return f"a whole number from {least} {f'to {most}' if most else 'on'}"
        case inspect.FloatType(gt=above, ge=least, le=most):
            return f"a number {f'from {least:g}' if above is None else f'above {above:g}'} to {most:g}"
        case inspect.StrType(pattern=None, max_length=None):
            return "text"
        case inspect.StrType(pattern=None, max_length=most):
            return f"at most {most} characters"
        case inspect.StrType(pattern=pattern):
            return f"a match of {pattern}"
        case inspect.UnionType(types=types):  # it has a default of its own
            return _allowed(next(one for one in types if not isinstance(one, inspect.NoneType)))
        case _:
            return "true or false"
