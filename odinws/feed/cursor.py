"""Where a feed stands in the sequence of NATS, and what came before on each channel. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from odinws.feed.events import Lost, Message, NewEpoch


class Cursor:
    """The position of a feed. It outlives connections to NATS: the next one goes on from here.

    Attributes:
        epoch: the name under which `seq` counts; "none" before the first.
        seq: all up to here was taken, passed over, or is gone. Rises within an epoch.
        floor: all up to here that was not taken is gone, and that was told: `prev` is never below it.
    """

    def __init__(self) -> None:
        self.epoch = "none"
        self.seq = 0
        self.floor = 0
        self._latest: dict[str, int] = {}  # channel -> seq of its latest message

    def continues(self, epoch: str, last_seq: int) -> bool:
        """Whether a stream that is at `last_seq` has the sequence that is known here.

        One with less in it than was seen was restored from an older copy: its numbers come again.
        """
        return epoch == self.epoch and self.seq <= last_seq

    def begin(self, epoch: str, seq: int, latest: Mapping[str, int]) -> NewEpoch:
        """Begin in another sequence: nothing known of the last one holds.

        Args:
            seq: its latest sequence that is there already; what follows it comes.
            latest: of channels that have a message already, the sequence of the latest.
        """
        self.epoch, self.seq, self.floor = epoch, seq, 0
        self._latest = dict(latest)
        return NewEpoch(epoch, seq)

    def rename(self, epoch: str) -> NewEpoch:
        """Count on under another name: what was published meanwhile is not known."""
        self.epoch = epoch
        return NewEpoch(epoch, self.seq)

    def expire(self, first_seq: int) -> Lost | None:
        """Nothing before `first_seq` comes any more. What is gone of it; None: all of that was had."""
        if first_seq <= self.seq + 1:
            return None
        lost = Lost(None, self.seq + 1, first_seq - 1, "expired")
        self.seq = self.floor = lost.last
        return lost

    def take(self, channel: str, seq: int, ts_ms: int, payload: bytes) -> Message:
        """The next message, of a channel that is carried; `seq` is above that of the cursor."""
        prev = max(self.floor, self._latest.get(channel, 0))
        self._latest[channel] = self.seq = seq
        return Message(channel, seq, prev, ts_ms, payload)

    def skip(self, seq: int) -> None:
        """The next message is of no channel that is carried."""
        self.seq = seq
