"""The connection of a client that speaks Centrifugo's protocol.

It differs from others in what it needs to know of its client: whether that has said `connect`, what it is
still sent of what it missed, and which subscriptions a gap has just ended. Its pings come at fixed times, as
most SDKs reconnect without one, whatever else they receive.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Collection, Iterable, Sequence

from odinws.close_codes import CloseReason
from odinws.connections.connection import Connection, Owner, State
from odinws.connections.ledger import GREENLET_BYTES, JOIN_BYTES
from odinws.connections.limits import ConnectionLimits
from odinws.connections.outbox import Outbox, SlowPolicy
from odinws.messages.protocol import Left
from odinws.messages.wire_format import Bundle, WireFormat

EXPIRY_GRACE_SECONDS = 25.0  # an SDK asks for a token when it has expired, not before


class CentrifugoConnection(Connection):
    """One client of the Centrifugo endpoint.

    Attributes:
        is_connected: whether `connect` has been answered.
        subscribes_anew: whether the client does so when it is told that a gap has ended a subscription.
        server_side: the channels that the server has subscribed it to.
        granted: channels that it has by a token of their own, and when that expires, seconds since 1970.
        deciding: how many subscriptions are being decided on.
        missed: channels to be resumed, and the sequence of each: the client counts as subscribed.
        wanted: those that are being resumed, unless the client has left.
        ending: subscriptions that have ended for the client, and end for the strategy before the next pass.
        failed: those that a gap has ended while they were resumed: to try again would come to the same.
    """

    late = CloseReason.STALE

    __slots__ = (
        "_ping_at",
        "deciding",
        "ending",
        "failed",
        "granted",
        "is_connected",
        "missed",
        "server_side",
        "subscribes_anew",
        "wanted",
    )

    def __init__(
        self, owner: Owner, conn_id: str, sock: socket.socket, peer: str, wire_format: WireFormat
    ) -> None:
        super().__init__(owner, conn_id, sock, peer, wire_format)
        self.is_connected = self.subscribes_anew = False
        self.server_side: Collection[str] = ()
        self.deciding = 0
        # Made when they are needed: most connections never do.
        self.granted: dict[str, float | None] | None = None
        self.missed: dict[str, int] | None = None
        self.wanted: set[str] | None = None
        self.ending: set[str] | None = None
        self.failed: set[str] | None = None
        self._ping_at = owner.now + random.uniform(0.5, 1.0) * self.limits.heartbeat_seconds

    @property
    def limits(self) -> ConnectionLimits:
        """Those of this endpoint."""
        return self._owner.centrifugo_limits

    @property
    def has_begun(self) -> bool:
        """Whether it is connected, in the words of the protocol."""
        return self.is_connected

    @property
    def expires_at(self) -> float | None:
        """A little after its token has expired."""
        expires_at = self.identity.expires_at
        return None if expires_at is None else expires_at + EXPIRY_GRACE_SECONDS

    def measure(self) -> int:
        """With subscriptions that are being decided on, and the greenlet that sends what was missed."""
        is_missing = self.missed is not None or self.wanted is not None
        return super().measure() + JOIN_BYTES * self.deciding + (GREENLET_BYTES if is_missing else 0)

    def decide_on(self, count: int) -> None:
        """So many subscriptions are being decided on now."""
        self.deciding = count
        self.charge()

    # -- subscriptions -----------------------------------------------------------------------------

    @property
    def subscriptions(self) -> set[str]:
        """All that the client believes to have."""
        return {*self.channels, *(self.missed or ()), *(self.wanted or ())} - (self.ending or set())

    def holds(self, name: str) -> bool:
        """Whether the client believes to be subscribed."""
        return (name in self.channels and not self.is_ending(name)) or self._is_missing(name)

    def is_ending(self, name: str) -> bool:
        """Whether a subscription has ended, and the strategy does not know yet."""
        return self.ending is not None and name in self.ending

    def _is_missing(self, name: str) -> bool:
        return (self.missed is not None and name in self.missed) or (
            self.wanted is not None and name in self.wanted
        )

    def expect(self, name: str, since: int) -> bool:
        """Have a channel resumed; False: a greenlet of the connection is resuming others already."""
        is_first = self.missed is None and self.wanted is None
        self.missed = {} if self.missed is None else self.missed
        self.missed[name] = since
        if is_first:
            self.charge()
        return is_first

    def next_missed(self) -> tuple[dict[str, int], set[str]] | None:
        """What is to be resumed next, and `wanted`; None: nothing."""
        missed, self.missed = self.missed, None
        self.wanted = set(missed) if missed else None
        if missed and self.wanted:
            return missed, self.wanted
        self.charge()
        return None

    def forget(self, name: str) -> None:
        """The client does not want a channel any more, for which it may still wait."""
        if self.missed is not None:
            self.missed.pop(name, None)
        if self.wanted is not None:
            self.wanted.discard(name)

    def has_failed(self, name: str) -> bool:
        """Whether a gap has ended a channel while it was resumed; asked once."""
        if self.failed is None or name not in self.failed:
            return False
        self.failed.discard(name)
        return True

    def _lose(self, name: str, *, can_be_had: bool = True) -> None:
        """The client has been told that a subscription has ended.

        Args:
            can_be_had: whether what it misses may come if it subscribes anew.
        """
        if self._is_missing(name):
            self.forget(name)
            if not can_be_had:
                self.failed = self.failed or set()
                self.failed.add(name)
        if name in self.channels:
            self.ending = self.ending or set()
            self.ending.add(name)
            self._owner.on_unsubscribed(self, self.ending)

    # -- out ---------------------------------------------------------------------------------------

    def send(self, data: bytes, bundles: Sequence[Bundle]) -> bool:
        """As ever; with a gap the subscription ends, or the connection if that is all an SDK understands."""
        if self.ending:  # this pass has ended some, and has more for them
            bundles = [bundle for bundle in bundles if not self._is_of_ending(bundle)]
            data = b"".join([bundle.data for bundle in bundles])
            if not data:
                return False
        for bundle in bundles:
            if bundle.ends:
                return self._send_ends(data, bundles)
        return Connection.send(self, data, bundles)

    def _is_of_ending(self, bundle: Bundle) -> bool:
        name = bundle.entries[0].channel if bundle.entries else None
        return name is not None and self.is_ending(name)

    def _send_ends(self, data: bytes, bundles: Sequence[Bundle]) -> bool:
        if self.state is not State.OPEN:
            return False
        ends = [bundle.ends for bundle in bundles if bundle.ends]
        if self._must_reconnect(ends):
            rest = [Bundle.of(bundle.entries[:-1]) if bundle.ends else bundle for bundle in bundles]
            data = b"".join([bundle.data for bundle in rest])
            if data:
                Connection.send(self, data, rest)
            self.close(CloseReason.INSUFFICIENT_STATE)
            return True
        sent = Connection.send(self, data, bundles)
        for name in ends:
            self._lose(name, can_be_had=False)
        return sent

    def _must_reconnect(self, names: Iterable[str]) -> bool:
        return not self.subscribes_anew or any(name in self.server_side for name in names)

    def _shed(self, outbox: Outbox, policy: SlowPolicy, applies: Callable[[str], bool]) -> int:
        """All messages of these channels that wait give way to the ends of their subscriptions.

        The client subscribes anew when it has read so far, and gets them then.
        """
        names = set(filter(applies, outbox.channels))
        if self._must_reconnect(names):
            return 0
        dropped = outbox.drop_messages(self.wire_format, names)
        for name in names:
            self._lose(name)
        return dropped

    # -- time --------------------------------------------------------------------------------------

    def on_timer(self) -> None:
        """Also ends what channels' own tokens do not allow any more."""
        if self.granted and not self.state:
            self._end_expired(self.granted, time.time() - EXPIRY_GRACE_SECONDS)
        super().on_timer()

    def _end_expired(self, granted: dict[str, float | None], now: float) -> None:
        for name in [name for name, expires_at in granted.items() if expires_at and expires_at <= now]:
            del granted[name]
            if not self.holds(name):
                continue
            if not self.subscribes_anew:
                self.close(CloseReason.UNAUTHORISED)
                return
            self.send_value(Left(name, needs_token=True))
            self._lose(name)

    def _until_ping(self) -> float:
        """Seconds until the next one is due, by a fixed clock."""
        return self._ping_at - self._owner.now

    def _ping(self) -> None:
        owner = self._owner
        self._ping_at = max(self._ping_at, owner.now - 1.0) + self.limits.heartbeat_seconds
        self.send_frame(self.wire_format.ping(b""))
