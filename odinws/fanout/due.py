"""What connections are due in one pass: joined once, for all who are due the same. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from odinws.fanout.wildcards import Matches
from odinws.feed.events import Lost, Message
from odinws.messages.wire_format import Bundle, Packet, WireFormat

MAX_JOINED = 512  # combinations that are cached: 5 of 10 tokens are 252

Events = Sequence[Message | Lost]


class JoinedBundles:
    """The joined bytes of some bundles, for all connections that are due the same ones.

    Args:
        wire_format: in which they are encoded; in some, messages are to be in the order of the stream.

    Attributes:
        bundles: that are sent.
        count: how many of the frames are messages or gaps.
        kind: of the format, one of `KINDS`.
        ends: whether a gap among them ends a subscription.
        sends: how many connections they were sent to.
    """

    __slots__ = ("bundles", "count", "data", "ends", "kind", "sends", "size")

    def __init__(self, bundles: Sequence[Bundle], wire_format: WireFormat) -> None:
        if wire_format.in_stream_order and len(bundles) > 1:
            bundles = (Bundle.merged(bundles),)
        self.kind = wire_format.kind
        self.bundles = bundles
        self.data = b"".join([bundle.data for bundle in bundles])
        self.size = len(self.data)
        self.count = sum([bundle.data_count for bundle in bundles])
        self.ends = any(bundle.ends for bundle in bundles)
        self.sends = 0


JoinCache = dict[tuple[Bundle, ...], JoinedBundles]


class Due:
    """Looks up what a connection is due by its channels and its wire format.

    Those are its channels in the order of `events`, then its wildcards. Each event is due once, unless the
    format says otherwise.

    Args:
        events: by channel.
        matches: those of wildcards.
        pack: encodes the events of one of them; called for what somebody is due.
        default_format: the format that most connections have.

    Attributes:
        plain: what was found so far for the default format, by channels.
        others: the same for the other formats.
        joined: the same for all formats, by bundles.
    """

    def __init__(
        self,
        events: Mapping[str, Events],
        matches: Matches,
        pack: Callable[[Events, str], Packet],
        default_format: WireFormat,
    ) -> None:
        self._events = {**events, **matches.events}
        self._matches = matches
        self._pack = pack
        self._default_format = default_format
        self._packets: dict[tuple[str, ...], Packet] = {}
        self.others: defaultdict[WireFormat, dict[object, JoinedBundles]] = defaultdict(dict)
        self.plain: dict[object, JoinedBundles] = {}
        self.joined: JoinCache = {}

    @property
    def is_full(self) -> bool:
        """Whether `clear` should be called."""
        return len(self.plain) + sum(map(len, self.others.values())) >= MAX_JOINED

    @property
    def has_gaps(self) -> bool:
        """Whether there is a gap in anything that was found."""
        return any(packet.has_gaps for packet in self._packets.values())

    def clear(self) -> None:
        """Forget what was found; what is encoded stays."""
        self.plain.clear()
        self.others.clear()
        self.joined.clear()

    def find(self, channels: Mapping[str, None], wire_format: WireFormat) -> JoinedBundles:
        """What a connection is due.

        Args:
            channels: its subscriptions; hashable.
        """
        known = self.plain if wire_format is self._default_format else self.others[wire_format]
        found = known.get(channels)
        if found is None:
            found = known[channels] = self._join(channels, wire_format)
        return found

    def _join(self, channels: Mapping[str, None], wire_format: WireFormat) -> JoinedBundles:
        held = [name for name in self._events if name in channels]
        if wire_format.delivers_once and self._matches.events:
            parts = self._matches.names(held)
        else:
            parts = [(name,) for name in held]
        is_plain = wire_format is self._default_format
        bundles = []
        for names in parts:
            packet = self._packets.get(names)
            if packet is None:
                events = self._events[names[0]] if len(names) == 1 else self._matches.merged(names)
                packet = self._packets[names] = self._pack(events, names[0])
            bundles.append(packet.plain if is_plain else packet.encoded(wire_format))
        key = tuple(bundles)
        joined = self.joined.get(key)
        if joined is None:
            joined = self.joined[key] = JoinedBundles(key, wire_format)
        return joined
