"""Names of places in code, short enough to read: `odinws/fanout/hub.py:151 Hub.deliver`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType


@lru_cache(maxsize=4096)
def short(path: str) -> str:
    """A path without the directory that Python imports from."""
    roots = [entry.rstrip("/") + "/" for entry in (*sys.path, str(Path.cwd())) if entry]
    found = max((root for root in roots if path.startswith(root)), key=len, default="")
    return path[len(found) :]


def place(frame: FrameType) -> str:
    """Where a frame stands."""
    code = frame.f_code
    return f"{short(code.co_filename)}:{frame.f_lineno} {code.co_qualname}"


def stack(frame: FrameType | None) -> list[str]:
    """The places of a frame and its callers, the outermost first."""
    places: list[str] = []
    while frame is not None:
        places.append(place(frame))
        frame = frame.f_back
    return places[::-1]


def place_at(path: str, line: int) -> str:
    """Where a line stands, as `place`; without a name if no function of a module has it."""
    name = _function(path, line)
    return f"{short(path)}:{line} {name}".rstrip()


@lru_cache(maxsize=4096)
def _function(path: str, line: int) -> str:
    best: CodeType | None = None
    for module in [module for module in list(sys.modules.values()) if _file(module) == path]:
        for code in _codes(module, path):
            # The innermost: of those around the line, the one that begins last.
            if _has(code, line) and (best is None or code.co_firstlineno > best.co_firstlineno):
                best = code
    return best.co_qualname if best is not None else ""


# By the type itself, and no attribute is asked for: a proxy in a module might look for a request, or import.


def _file(module: object) -> object:
    return vars(module).get("__file__") if issubclass(type(module), ModuleType) else None


def _codes(module: object, path: str) -> Iterator[CodeType]:
    """The code of all functions and methods of a module, those within others included."""
    things = list(vars(module).values())
    for thing in list(things):
        if issubclass(type(thing), type):
            things += list(vars(thing).values())
    for thing in things:
        kind = type(thing)
        if kind is staticmethod or kind is classmethod:
            thing = thing.__func__
        elif kind is property:
            thing = thing.fget
        elif kind is cached_property:
            thing = thing.func
        if type(thing) is FunctionType and thing.__code__.co_filename == path:
            yield from _nested(thing.__code__)


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _has(code: CodeType, line: int) -> bool:
    return any(found == line for _, _, found in code.co_lines())
