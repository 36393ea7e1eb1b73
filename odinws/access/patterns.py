"""Names of channels, and patterns of them, as NATS has them. Pure.

A name has tokens, separated by dots. In a pattern `*` stands for one token, and `>` at its end for one or
more. A pattern without either is a channel; one with either is a wildcard.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

ONE, REST = "*", ">"
MAX_TOKENS = 8
MAX_BYTES = 255

_END = ""  # no token is empty

Tokens = Sequence[str]


def is_wildcard(name: str) -> bool:
    """Whether a name stands for more than one channel. No token of a channel has these characters."""
    return ONE in name or REST in name


def covers(pattern: Tokens, name: Tokens) -> bool:
    """Whether a pattern has the channel, or every channel of the other pattern.

    Args:
        pattern, name: their tokens.
    """
    for at, token in enumerate(pattern):
        if token == REST:
            return len(name) > at
        if at == len(name) or name[at] == REST or (token != ONE and token != name[at]):
            return False
    return len(pattern) == len(name)


def intersection(one: Tokens, other: Tokens) -> tuple[str, ...] | None:
    """The pattern of the channels that both patterns have; None: they have none in common."""
    common: list[str] = []
    for at in range(max(len(one), len(other))):
        if at >= len(one) or at >= len(other):
            return None
        if one[at] == REST:
            return (*common, *other[at:])
        if other[at] == REST:
            return (*common, *one[at:])
        if one[at] != other[at] and ONE not in (one[at], other[at]):
            return None
        common.append(other[at] if one[at] == ONE else one[at])
    return tuple(common)


def disjoint(patterns: Sequence[str]) -> bool:
    """Whether no two patterns have a channel in common. Compares each with each."""
    split = [pattern.split(".") for pattern in patterns]
    return not any(
        intersection(one, other) is not None for at, one in enumerate(split) for other in split[:at]
    )


class PatternSet:
    """Patterns, arranged so that those that cover a name are found without a look at the others."""

    __slots__ = ("_count", "_root")

    def __init__(self) -> None:
        self._root: dict[str, Any] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, pattern: str) -> bool:
        """Add a pattern; False if it is there."""
        node = self._root
        for token in pattern.split("."):
            node = node.setdefault(token, {})
        if _END in node:
            return False
        node[_END] = pattern
        self._count += 1
        return True

    def discard(self, pattern: str) -> bool:
        """Remove a pattern; False if it is not there."""
        node = self._root
        path = []
        for token in pattern.split("."):
            if token not in node:
                return False
            path.append((node, token))
            node = node[token]
        if node.pop(_END, None) is None:
            return False
        self._count -= 1
        for parent, token in reversed(path):
            if parent[token]:
                break
            del parent[token]
        return True

    def covering(self, name: str) -> list[str]:
        """The patterns that cover a channel or a pattern, itself included. At most 511 for 8 tokens."""
        found: list[str] = []
        nodes = [self._root]
        for token in name.split("."):
            deeper = []
            for node in nodes:
                if REST in node:
                    found.append(node[REST][_END])
                if token == REST:
                    continue
                if token != ONE and token in node:
                    deeper.append(node[token])
                if ONE in node:
                    deeper.append(node[ONE])
            nodes = deeper
            if not nodes:
                return found
        found.extend(node[_END] for node in nodes if _END in node)
        return found
