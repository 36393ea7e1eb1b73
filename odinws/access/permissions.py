"""What the claim `channels` of a token grants. Pure.

A grant is a channel or a pattern. A token with the claim may have exactly what it lists; what one without it
may have is said by the rules, see `channels`.
"""

from __future__ import annotations

from collections.abc import Iterable
from weakref import WeakValueDictionary

from odinws.access.patterns import PatternSet, is_wildcard

MAX_GRANTS = 256

_OWN = "{sub}"  # in place of the subject in what is shared; no token of a channel has such characters


class Permissions:
    """The grants of a claim. Equal ones are one object, for all subjects whose grants differ by these alone.

    `of` makes them.
    """

    __slots__ = ("__weakref__", "_channels", "_patterns")

    def __init__(self, grants: frozenset[str]) -> None:
        self._channels = frozenset(grant for grant in grants if not is_wildcard(grant))
        self._patterns: PatternSet | None = None
        for grant in grants - self._channels:
            self._patterns = self._patterns or PatternSet()
            self._patterns.add(grant)

    @classmethod
    def of(cls, grants: Iterable[str], subject: str | None) -> Permissions:
        """The permissions by these grants.

        Args:
            grants: channels and patterns.
            subject: whose they are; None: nobody's.
        """
        key = frozenset(_shared_name(grant, subject) for grant in grants)
        found = _known.get(key)
        if found is None:
            _known[key] = found = cls(key)
        return found

    def grants(self, name: str, subject: str | None) -> bool:
        """Whether a channel is granted, or every channel of a pattern, by one grant.

        Args:
            subject: whose permissions these are.
        """
        shared = _shared_name(name, subject)
        if shared in self._channels:
            return True
        return self._patterns is not None and bool(self._patterns.covering(shared))


# As long as some identity has them, so there are never more than identities.
_known: WeakValueDictionary[frozenset[str], Permissions] = WeakValueDictionary()


def _shared_name(name: str, subject: str | None) -> str:
    """A name without the subject, so that `user.42` of 42 and `user.43` of 43 are one grant."""
    if subject is None or subject not in name or is_wildcard(subject):
        return name
    return ".".join([_OWN if token == subject else token for token in name.split(".")])
