"""`odinws.debug.locations`: code by short names."""

from __future__ import annotations

import functools
import json
import sys

from odinws.debug import locations


class Holder:
    """Has methods of all kinds."""

    def plain(self) -> int:
        return sys._getframe().f_lineno

    @functools.cached_property
    def cached(self) -> list[str]:
        return locations.stack(sys._getframe())

    @staticmethod
    def outer() -> int:
        def inner() -> int:
            return sys._getframe().f_lineno

        return inner()


def test_stacks() -> None:
    """The outermost first; files without the directory they are imported from."""
    stack = Holder().cached
    assert stack[-1].startswith("tests/debug/test_locations.py:")
    assert stack[-1].endswith(" Holder.cached")
    assert stack[-2].endswith(" test_stacks") or "functools" in stack[-2]
    assert any(place.startswith("_pytest/") for place in stack)


class Proxy:
    """Stands for something that is not there now."""

    def __getattribute__(self, name: str) -> object:
        raise RuntimeError("out of context")


proxy = Proxy()


def test_functions_are_found_by_line() -> None:
    """Methods, and functions in functions; a line of no function has no name."""
    assert locations.place_at(__file__, Holder().plain()).endswith(" Holder.plain")
    assert locations.place_at(__file__, Holder.outer()).endswith(" Holder.outer.<locals>.inner")
    assert locations.place_at(json.__file__, 1) == "json/__init__.py:1"
    assert locations.place_at("/nowhere.py", 3) == "/nowhere.py:3"
