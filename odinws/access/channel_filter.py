"""Which channels this server carries, of all that NATS has: what `WS_SUBJECTS` lists. Pure."""

from __future__ import annotations

from odinws.access.permissions import EVERYTHING, KINDS, Permissions, is_grant
from odinws.messages.channels import MAX_CHANNEL_BYTES


class ChannelFilter:
    """The channels that clients can have here.

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
