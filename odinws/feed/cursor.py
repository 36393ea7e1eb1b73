"""The position of a feed in the stream, and the latest sequence of each channel. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from odinws.feed.events import Lost, Message, NewEpoch


class Cursor:
    """The position of a feed. It outlives connections to NATS: the next one continues from here.

    Attributes:
        epoch: the epoch of `seq`; "none" before the first.
        seq: every message up to here was taken or skipped, or is lost. Increases within an epoch.
        floor: messages up to here that were not taken are lost, and were reported so: `prev` is never lower.
        known_from: the latest message of each channel is known if it comes after this, see `is_current`.
    """

    def __init__(self) -> None:
        self.epoch = "none"
        self.seq = 0
        self.floor = 0
        self.known_from = 0
        self._latest: dict[str, int] = {}  # channel -> seq of its latest message

    def continues(self, epoch: str, last_seq: int) -> bool:
        """Whether a stream whose latest sequence is `last_seq` continues the one known here.

        One that ends before `seq` was restored from an older copy: it will use these sequences again.
        """
        return epoch == self.epoch and self.seq <= last_seq

    def begin(
        self, epoch: str, seq: int, latest: Mapping[str, int], known_from: int | None = None
    ) -> NewEpoch:
        """Start over with another stream: nothing known about the previous one is valid.

        Args:
            seq: the latest sequence of the new stream; messages after it will come.
            latest: by channel, the sequence of its latest message in the new stream.
            known_from: a channel had no message between this, or what `latest` says, and `seq`; None: it may
                have had some.
        """
        self.epoch, self.seq, self.floor = epoch, seq, 0
        self.known_from = seq if known_from is None else known_from
        self._latest = dict(latest)
        return NewEpoch(epoch, seq)

    def rename(self, epoch: str) -> NewEpoch:
        """Continue the sequence in a new epoch: what was published meanwhile is unknown."""
        self.epoch, self.known_from = epoch, self.seq
        return NewEpoch(epoch, self.seq)

    def lose(self, lost: Lost) -> None:
        """Advance past what is lost, which begins after the cursor."""
        self.seq = self.floor = self.known_from = lost.last

    def doubt(self, lost: Lost) -> None:
        """Some messages may be lost behind the cursor: which channels had one is not known any more."""
        self.known_from = max(self.known_from, lost.last)

    def is_current(self, channel: str, seq: int) -> bool:
        """Whether it is certain that a channel had no message after `seq` and up to the cursor."""
        return self.known_from <= seq <= self.seq and self._latest.get(channel, 0) <= seq

    def take(self, channel: str, seq: int, ts_ms: int, payload: bytes) -> Message:
        """Advance to a message of a channel that is carried; `seq` is higher than the cursor's."""
        prev = max(self.floor, self._latest.get(channel, 0))
        self._latest[channel] = self.seq = seq
        return Message(channel, seq, prev, ts_ms, payload)

    def skip(self, seq: int) -> None:
        """Advance past a message of a channel that is not carried."""
        self.seq = seq
