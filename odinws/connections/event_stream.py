"""A connection that only sends: Server-Sent Events, and lines of JSON.

What it gets it has said in its request. What else it sends is read, so that its end shows, charged, and
thrown away. It is never expected to say anything: the kernel knows whether it is there (TCP_USER_TIMEOUT).
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType

from odinws.connections.connection import Connection, Owner
from odinws.messages.protocol import Position
from odinws.messages.wire_format import WireFormat

_NOTHING: Mapping[str, None] = MappingProxyType({})


class EventStream(Connection):
    """One client of an event stream.

    Attributes:
        followed: the channels and wildcards that it is to get; empty once it has them, see `channels`.
        since: where it is in the stream, until then; None: it begins anew.
        wants_newest: whether it begins with the newest message of each channel.
        returns: whether it has been here before.
    """

    __slots__ = ("followed", "returns", "since", "wants_newest")

    def __init__(
        self, owner: Owner, conn_id: str, sock: socket.socket, peer: str, wire_format: WireFormat
    ) -> None:
        super().__init__(owner, conn_id, sock, peer, wire_format)
        self._ignores_input = True
        self.allowance = owner.now  # no command is waited for
        self.followed: Mapping[str, None] = _NOTHING
        self.since: Position | None = None
        self.wants_newest = False
        self.returns = False

    @property
    def is_joining(self) -> bool:
        """Whether it does not get all its channels yet."""
        return self.commands is not None

    @property
    def names(self) -> list[str]:
        """The channels and wildcards that it gets, or is to get."""
        return [*(self.followed or self.channels)]

    def joined(self) -> None:
        """It gets all that it follows; what only the way there needed is not kept."""
        self.followed, self.since = _NOTHING, None
        self.commands_done()

    def follow(self) -> None:
        """Have its owner bring it what it follows."""
        self.commands = deque()
        self.charge()
        self._owner.on_command(self)

    def _ping(self) -> None:
        if not self.has_waiting:
            self.last_seen = self._owner.now  # when it was last looked at
        super()._ping()
