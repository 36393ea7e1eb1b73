"""Which channels an identity may subscribe to, of those that this server carries. Pure.

A grant is a channel (`global`, `token.BTC`, `user.42`) or a pattern for all of a kind (`token.*`,
`user.*`). Without the claim `channels`, a token gives the public channels and the `user` channel of its
own subject. With it, exactly what it lists: also the own `user` channel must stand there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from weakref import WeakValueDictionary

from odinws.access.errors import forbidden, unauthenticated
from odinws.messages.protocol import CHANNEL, MAX_CHANNEL_BYTES

MAX_GRANTS = 256
KINDS = ("token", "user")

_USER = "user."
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class _Grants:
    """What many identities share: channels, and kinds of which all channels are granted."""

    __slots__ = ("__weakref__", "channels", "kinds")

    def __init__(self, channels: frozenset[str], kinds: frozenset[str]) -> None:
        self.channels = channels
        self.kinds = kinds


# Equal grants are one object as long as some identity has them, so there are never more than identities.
_shared: WeakValueDictionary[tuple[frozenset[str], frozenset[str]], _Grants] = WeakValueDictionary()


def _grants(patterns: frozenset[str]) -> _Grants:
    kinds = frozenset(kind for kind in KINDS if f"{kind}.*" in patterns)
    # A channel of a kind that is granted as a whole says nothing more.
    channels = frozenset(p for p in patterns if CHANNEL.fullmatch(p) and p.partition(".")[0] not in kinds)
    grants = _shared.get((channels, kinds))
    if grants is None:
        _shared[channels, kinds] = grants = _Grants(channels, kinds)
    return grants


class Permissions:
    """The channels of one identity. Two words per identity: what it has in common with others is shared.

    Args:
        patterns: grants, see the module; what is none grants nothing.
        own: id of the one `user` channel that is granted besides; None: none.
    """

    __slots__ = ("_grants", "_own")

    def __init__(self, patterns: Iterable[str], own: str | None = None) -> None:
        self._grants = _grants(frozenset(patterns))
        self._own = None if "user" in self._grants.kinds else own

    def allows(self, channel: str) -> bool:
        """Whether this channel may be subscribed to.

        Args:
            channel: a channel, or `token.*` or `user.*` for all of a kind, allowed if all of them are.
                Whatever else it is, is not allowed.
        """
        grants = self._grants
        if channel in grants.channels:
            return True
        kind, _, rest = channel.partition(".")
        if kind in grants.kinds:
            return rest == "*" or _ID.fullmatch(rest) is not None
        return kind == "user" and rest == self._own

    def __eq__(self, other: object) -> bool:
        """Equal if they allow the same for the same reason."""
        if not isinstance(other, Permissions):
            return NotImplemented
        return self._grants is other._grants and self._own == other._own

    def __hash__(self) -> int:
        """By value."""
        return hash((id(self._grants), self._own))

    def __repr__(self) -> str:
        """The grants, sorted."""
        kinds = (f"{kind}.*" for kind in self._grants.kinds)
        own = () if self._own is None else (_USER + self._own,)
        return f"Permissions({sorted([*self._grants.channels, *kinds, *own])})"


_PUBLIC_PATTERNS = ("token.*", "global")
PUBLIC = Permissions(_PUBLIC_PATTERNS)
EVERYTHING = Permissions(("token.*", "user.*", "global"))


def of_claim(subject: str, claim: object) -> Permissions:
    """The permissions of a token.

    Args:
        subject: its `sub`. One that is no valid id has no `user` channel of its own.
        claim: its `channels` as decoded from JSON; None: it has none.

    Raises:
        AccessError: the claim is no list of texts (4401), or lists too many, or what is no grant (4403).
    """
    own = subject if _ID.fullmatch(subject) else None
    if claim is None:
        return Permissions(_PUBLIC_PATTERNS, own)
    if not isinstance(claim, list) or not all(isinstance(pattern, str) for pattern in claim):
        raise unauthenticated("the token's claim channels is not a list of texts")
    if len(claim) > MAX_GRANTS:
        raise forbidden(f"the token's claim channels has more than {MAX_GRANTS} entries")
    for place, pattern in enumerate(claim):
        if not is_grant(pattern):
            raise forbidden(f"the token's claim channels[{place}] is neither a channel nor token.* or user.*")
    patterns = frozenset(claim)
    if own is not None and _USER + own in patterns:
        return Permissions(patterns - {_USER + own}, own)  # so that others can share the rest
    return Permissions(patterns)


def is_grant(pattern: str) -> bool:
    """Whether a pattern is a channel, or `token.*` or `user.*`."""
    if len(pattern) > MAX_CHANNEL_BYTES:
        return False
    return CHANNEL.fullmatch(pattern) is not None or pattern in [f"{kind}.*" for kind in KINDS]


class ChannelFilter:
    """The channels that this server carries, of all that NATS has: what `WS_SUBJECTS` lists.

    Args:
        listed: channels and `token.*` or `user.*`, comma-separated, with or without `prefix`; "": all.
        prefix: of every subject.

    Attributes:
        subjects: what is subscribed to at NATS; none contains another's messages.

    Raises:
        ValueError: an entry is none of these; its text says which.
    """

    def __init__(self, listed: str, prefix: str) -> None:
        entries = [entry.removeprefix(prefix) for entry in map(str.strip, listed.split(",")) if entry]
        for entry in entries:
            if not is_grant(entry):
                raise ValueError(f"{entry[:MAX_CHANNEL_BYTES]!r} is neither a channel nor token.* or user.*")
        self._channels = Permissions(entries) if entries else EVERYTHING
        kinds = {kind for kind in KINDS if f"{kind}.*" in entries}
        apart = [e for e in entries if e.endswith(".*") or e.partition(".")[0] not in kinds]
        self.subjects = tuple(prefix + entry for entry in dict.fromkeys(apart)) or (prefix + ">",)

    def has(self, channel: str) -> bool:
        """Whether a channel, or all of a wildcard, is carried."""
        return self._channels.allows(channel)
