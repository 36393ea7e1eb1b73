"""What connections are due in one pass: joined once, for all who are due the same. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from odinws.feed.events import Lost, Message
from odinws.messages.protocol import wildcard
from odinws.messages.wire_format import Bundle, Packet, WireFormat

MAX_JOINED = 512  # combinations that are cached: 5 of 10 tokens are 252

Events = Sequence[Message | Lost]


class JoinedBundles:
    """The joined bytes of some bundles, for all connections that are due the same ones.

    Args:
        in_stream_order: whether the messages of all bundles are to be in the order of the stream.

    Attributes:
        bundles: that are sent.
        count: how many of the frames are messages or gaps.
        sends: how many connections they were sent to.
    """

    __slots__ = ("bundles", "count", "data", "sends", "size")

    def __init__(self, bundles: Sequence[Bundle], in_stream_order: bool) -> None:
        if in_stream_order and len(bundles) > 1:
            bundles = (Bundle.merged(bundles),)
        self.bundles = bundles
        self.data = b"".join([bundle.data for bundle in bundles])
        self.size = len(self.data)
        self.count = sum([bundle.data_count for bundle in bundles])
        self.sends = 0


JoinCache = dict[tuple[Bundle, ...], JoinedBundles]


class Due:
    """Looks up what a connection is due by its channels and its wire format.

    Those are its channels in the order of `events`; a channel is left out where its wildcard is due as well.

    Args:
        events: by channel or wildcard.
        wildcards: those among them.
        pack: encodes the events of one of them; called for what somebody is due.
        default_format: the format that most connections have.

    Attributes:
        plain: what was found so far for the default format, by channels.
        joined: the same for all formats, by bundles.
    """

    def __init__(
        self,
        events: Mapping[str, Events],
        wildcards: Collection[str],
        pack: Callable[[Events, str], Packet],
        default_format: WireFormat,
    ) -> None:
        self._events = events
        self._wildcard_of = {name: wildcard(name) for name in events if name not in wildcards}
        self._has_wildcards = bool(wildcards)
        self._pack = pack
        self._default_format = default_format
        self._packets: dict[str, Packet] = {}
        self._others: dict[tuple[object, WireFormat], JoinedBundles] = {}
        self.plain: dict[object, JoinedBundles] = {}
        self.joined: JoinCache = {}

    @property
    def is_full(self) -> bool:
        """Whether `clear` should be called."""
        return len(self.plain) + len(self._others) >= MAX_JOINED

    @property
    def has_gaps(self) -> bool:
        """Whether there is a gap in anything that was found."""
        return any(packet.has_gaps for packet in self._packets.values())

    def clear(self) -> None:
        """Forget what was found; what is encoded stays."""
        self.plain.clear()
        self._others.clear()
        self.joined.clear()

    def find(self, channels: Mapping[str, None], wire_format: WireFormat) -> JoinedBundles:
        """What a connection is due.

        Args:
            channels: its subscriptions; hashable.
        """
        if wire_format is self._default_format:
            found = self.plain.get(channels)
            if found is None:
                found = self.plain[channels] = self._join(channels, wire_format)
            return found
        key = (channels, wire_format)
        found = self._others.get(key)
        if found is None:
            found = self._others[key] = self._join(channels, wire_format)
        return found

    def _join(self, channels: Mapping[str, None], wire_format: WireFormat) -> JoinedBundles:
        names = [name for name in self._events if name in channels]
        if self._has_wildcards:
            names = [name for name in names if self._wildcard_of.get(name) not in names]
        is_plain = wire_format is self._default_format
        bundles = []
        for name in names:
            packet = self._packets.get(name)
            if packet is None:
                packet = self._packets[name] = self._pack(self._events[name], name)
            bundles.append(packet.plain if is_plain else packet.encoded(wire_format))
        key = tuple(bundles)
        joined = self.joined.get(key)
        if joined is None:
            joined = self.joined[key] = JoinedBundles(key, wire_format.in_stream_order)
        return joined
