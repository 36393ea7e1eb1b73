"""Wire formats: the one interface between values and the bytes of a socket. Pure.

A connection gets its wire format when it is created, and keeps it. All connections with the same format and
the same compression share one object. Formats are compared by identity, and what is encoded for one of these
connections is encoded for all of them: a packet holds what the subscribers of a channel get in one pass, and
makes a bundle of it once per format in use.

Another format is added in `BY_SUBPROTOCOL`: admission agrees on the subprotocols there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

from odinws.close_codes import CloseReason
from odinws.messages import frames
from odinws.messages.deflate import Deflater
from odinws.messages.frames import FrameReader, Opcode
from odinws.messages.protocol import Lost, Message, Outgoing, Request

KINDS = (
    ("json", "websocket"),
    ("centrifugo-json", "websocket"),
    ("centrifugo-protobuf", "websocket"),
    ("sse", "sse"),
    ("ndjson", "stream"),
)
"""The formats by which is counted, each with its transport."""

INVALID = "invalid_payload"  # the reason of a gap for a message that the format can't represent


class Reader(Protocol):
    """Decodes the bytes of one client into messages and control frames.

    Attributes:
        frame_count: frames that have begun: a message may come in many, and each takes time.
    """

    frame_count: int

    @property
    def is_idle(self) -> bool:
        """Whether there is no state: a new reader would do as well."""

    @property
    def held_bytes(self) -> int:
        """What is kept for the next call of `feed`."""

    def feed(self, data: bytes) -> Generator[frames.Message, None, None]:
        """Yield those that `data` completes. Raises FrameError if the connection must close.

        What a generator that is closed early has not come to is kept for the next call.
        """


class WireFormat(ABC):
    """Encodes values into bytes ready for the socket, framing included, and decodes commands.

    A method that encodes may return `b""`: then nothing is sent.

    Attributes:
        kind: one of `KINDS`.
        window_bits: of the compression, 9 to 15; 0: none.
        command_opcode: of the frames that carry commands, TEXT or BINARY. A frame of the other kind closes
            the connection.
        in_stream_order: whether a client gets the messages of all its channels in the order of the stream.
        delivers_once: whether a connection gets a message once, however many of its subscriptions have it;
            False: once for each of them.
        gaps_end: whether a gap ends the subscription that it goes by: what follows is sent when the client
            has subscribed anew, with its position.
    """

    kind: ClassVar[tuple[str, str]] = KINDS[0]
    window_bits: int = 0
    in_stream_order: ClassVar[bool] = False
    delivers_once: ClassVar[bool] = True
    command_opcode: ClassVar[Opcode] = Opcode.TEXT
    gaps_end: ClassVar[bool] = False

    # -- out ---------------------------------------------------------------------------------------

    @abstractmethod
    def message(self, message: Message, via: str) -> bytes:
        """Encode a message.

        Args:
            via: the channel or the wildcard that the recipients are subscribed to.

        Raises:
            ValueError: this format can't represent the payload; a gap takes its place.
        """

    @abstractmethod
    def gap(self, channel: str, first: int, last: int, reason: str, via: str) -> bytes:
        """Encode that `first` to `last`, inclusive, of a channel are missing; `via` as in `message`."""

    @abstractmethod
    def encode(self, value: Outgoing, tag: object = None) -> bytes:
        """Encode anything else; `tag` is that of the `Request` that this answers."""

    @abstractmethod
    def ping(self, payload: bytes) -> bytes:
        """Encode a ping. The client should return `payload`, at most 125 bytes, with its pong."""

    @abstractmethod
    def pong(self, payload: bytes) -> bytes:
        """Encode the answer to a client's ping."""

    @abstractmethod
    def close(self, reason: CloseReason, text: str, retry_after_seconds: float | None = None) -> bytes:
        """Encode the last bytes of a connection.

        Args:
            text: for humans.
            retry_after_seconds: how long the client should wait before it reconnects; None: not said.
        """

    @abstractmethod
    def close_answer(self, payload: bytes) -> bytes:
        """Encode the answer to a client's close frame. Raises FrameError if that is malformed."""

    # -- in ----------------------------------------------------------------------------------------

    @abstractmethod
    def reader(self, max_bytes: int) -> Reader:
        """A reader for one connection; `max_bytes` bounds a message."""

    @abstractmethod
    def decode(self, payload: bytes) -> Iterable[Request]:
        """The commands in one message of a client, in order.

        Raises:
            FrameError: the connection must close.
        """


class WebSocketFormat(WireFormat):
    """The base of formats that use WebSocket frames (RFC 6455).

    Args:
        window_bits: of the negotiated compression, 9 to 15; 0: none.
        min_deflate_bytes: shorter payloads are not compressed, as they would hardly shrink.

    Attributes:
        compresses: whether messages of a channel may be compressed; None: all may.
    """

    def __init__(self, window_bits: int = 0, min_deflate_bytes: int = 0) -> None:
        self.window_bits = window_bits
        self._min_deflate_bytes = min_deflate_bytes
        self._deflater = Deflater(window_bits) if window_bits else None
        self.compresses: Callable[[str], bool] | None = None

    def data_frame(self, payload: bytes, channel: str = "") -> bytes:
        """A frame of the kind `command_opcode`, compressed if that was negotiated and makes it shorter.

        Args:
            channel: whose messages may be exempt; "": none.
        """
        if (
            self._deflater is not None
            and len(payload) >= self._min_deflate_bytes
            and (self.compresses is None or self.compresses(channel))
        ):
            small = self._deflater.deflate(payload)
            if len(small) < len(payload):
                return frames.encode(self.command_opcode, small, deflated=True)
        return frames.encode(self.command_opcode, payload)

    def ping(self, payload: bytes) -> bytes:
        """A ping frame."""
        return frames.ping(payload)

    def pong(self, payload: bytes) -> bytes:
        """A pong frame."""
        return frames.pong(payload)

    def close(self, reason: CloseReason, text: str, retry_after_seconds: float | None = None) -> bytes:
        """A close frame, as in `server restarts; retry_after=1.5`."""
        if retry_after_seconds is not None:
            text = f"{text}; retry_after={retry_after_seconds:.1f}"
        return frames.close(reason.code, text)

    def close_answer(self, payload: bytes) -> bytes:
        """Echo the code (5.5.1); 1005 stands for no code and is never sent."""
        code, _ = frames.parse_close(payload)
        return frames.encode(Opcode.CLOSE, b"" if code == 1005 else payload[:2])

    def reader(self, max_bytes: int) -> Reader:
        """A reader of WebSocket frames."""
        return FrameReader(max_bytes, deflate=self.window_bits > 0)


class Entry(NamedTuple):
    """One frame.

    Attributes:
        channel: its channel, or the subscription that it goes by, see `WireFormat.gaps_end`; None: a
            control frame or an answer, which is never dropped.
        first, last: the sequences that it covers, inclusive: those of one message, or of a gap.
        messages: 1 for a message, 0 for a gap.
    """

    frame: bytes
    channel: str | None = None
    first: int = 0
    last: int = 0
    messages: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """Frames that are sent together. Compared by identity, which makes it a cheap key.

    A socket that accepts everything needs only the joined bytes. For one that does not, the frames in them
    must be known, so that some can be dropped and the client can be told which.

    Attributes:
        data: all frames, joined.
        entries: the same frames, one by one.
        data_count: how many of them are messages or gaps.
        gaps: the reasons of the gaps among them.
        ends: the subscription that the last of them ends; "": none.
        is_shared: whether other connections get it too.
    """

    data: bytes
    entries: Sequence[Entry]
    data_count: int
    gaps: Sequence[str] = ()
    ends: str = ""
    is_shared: bool = True

    @classmethod
    def of(cls, entries: Sequence[Entry], gaps: Sequence[str] = (), ends: str = "") -> Bundle:
        """A bundle of messages and gaps."""
        return cls(b"".join([entry.frame for entry in entries]), entries, len(entries), gaps, ends)

    @classmethod
    def merged(cls, bundles: Sequence[Bundle]) -> Bundle:
        """Their frames in the order of the stream."""
        entries = sorted([entry for bundle in bundles for entry in bundle.entries], key=_first)
        return cls(
            b"".join([entry.frame for entry in entries]),
            entries,
            sum([bundle.data_count for bundle in bundles]),
            [reason for bundle in bundles for reason in bundle.gaps],
        )

    @classmethod
    def control(cls, frame: bytes) -> Bundle:
        """A bundle of one control frame or answer."""
        return cls(frame, (Entry(frame),), 0)

    @classmethod
    def past(cls, bundles: Sequence[Bundle]) -> Bundle:
        """These together, for one connection alone."""
        entries = [entry for bundle in bundles for entry in bundle.entries]
        gaps = [reason for bundle in bundles for reason in bundle.gaps]
        return cls(b"".join([entry.frame for entry in entries]), entries, len(entries), gaps, is_shared=False)


def _first(entry: Entry) -> int:
    return entry.first


def encode(events: Sequence[Message | Lost], via: str, wire_format: WireFormat) -> Bundle:
    """Encode messages and gaps for the subscribers of `via`, a channel or a wildcard."""
    entries: list[Entry] = []
    gaps: list[str] = []
    ends = ""
    for event in events:
        if isinstance(event, Message):
            channel, first = event.channel, event.seq
            try:
                frame, last, reason = wire_format.message(event, via), first, ""
            except ValueError:
                frame, last, reason = b"", first, INVALID
        else:
            channel, first, last, reason = event.channel or via, event.first, event.last, event.reason
        if reason:
            frame = wire_format.gap(channel, first, last, reason, via)
        if frame:
            # Where a gap ends a subscription, a message without its payload is none.
            is_gap = reason != "" and not (wire_format.gaps_end and reason == INVALID)
            whose = via if wire_format.gaps_end else channel
            entries.append(Entry(frame, whose, first, last, 0 if is_gap else 1))
            if reason:
                gaps.append(reason)
            if is_gap and wire_format.gaps_end:
                ends = via  # what follows is sent when the client has subscribed anew
                break
    return Bundle.of(entries, gaps, ends)


class Packet:
    """What the subscribers of one channel or wildcard get in one pass, encoded once per wire format in use.

    Args:
        via: the channel or the wildcard.
        default: the format that most subscribers have.

    Attributes:
        plain: the events in the default format.
    """

    __slots__ = ("_events", "_made", "_via", "plain")

    def __init__(self, events: Sequence[Message | Lost], via: str, default: WireFormat) -> None:
        self._events = events
        self._via = via
        self.plain = encode(events, via, default)
        self._made = {default: self.plain}

    @property
    def has_gaps(self) -> bool:
        """Whether there is a gap in any format encoded so far."""
        return any(bundle.gaps for bundle in self._made.values())

    def encoded(self, wire_format: WireFormat) -> Bundle:
        """The events in another format."""
        bundle = self._made.get(wire_format)
        if bundle is None:
            bundle = self._made[wire_format] = encode(self._events, self._via, wire_format)
        return bundle


Factory = Callable[[int, int], WireFormat]  # of window bits and the shortest payload to compress, in bytes

BY_SUBPROTOCOL: dict[str, Factory] = {}  # every other subprotocol, and none, gets the native format


class FormatRegistry:
    """The wire formats of a worker: one object for each combination of format and window, made on demand.

    Args:
        native: the format of connections whose subprotocol is not in `by_subprotocol`.
        min_deflate_bytes: shorter payloads are not compressed.
        by_subprotocol: formats by negotiated subprotocol.
        compresses: whether messages of a channel may be compressed; None: all may.

    Attributes:
        default: the native format without compression.
    """

    def __init__(
        self,
        native: Factory,
        min_deflate_bytes: int,
        by_subprotocol: Mapping[str, Factory] = BY_SUBPROTOCOL,
        compresses: Callable[[str], bool] | None = None,
    ) -> None:
        self._native = native
        self._min_deflate_bytes = min_deflate_bytes
        self._by_subprotocol = by_subprotocol
        self._compresses = compresses
        self._made: dict[tuple[Factory, int], WireFormat] = {}
        self.default = self.of(None, 0)

    def of(self, subprotocol: str | None, window_bits: int) -> WireFormat:
        """The format of a connection.

        Args:
            subprotocol: as negotiated in the handshake, if any.
            window_bits: of the negotiated compression, 9 to 15; 0: none.
        """
        make = self._by_subprotocol.get(subprotocol or "", self._native)
        wire_format = self._made.get((make, window_bits))
        if wire_format is None:
            wire_format = self._made[make, window_bits] = make(window_bits, self._min_deflate_bytes)
            if isinstance(wire_format, WebSocketFormat):
                wire_format.compresses = self._compresses
        return wire_format
