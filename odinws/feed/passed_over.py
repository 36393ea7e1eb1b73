"""What a consumer with a filter has passed over, until it is known whether any of that is lost. Pure."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right

from odinws.feed.events import Lost
from odinws.feed.stream import Holes

_RANGES = 1 << 16  # 1 MB
_TOLD = 32  # gaps at one time, each for every channel of every client


class PassedOver:
    """Sequences that did not come: of others, or deleted before the consumer came to them.

    None of them was delivered, or told as lost. They are kept as ranges. Beyond `_RANGES`, which takes looks
    at the stream to fail for long, further ones are joined, with what was delivered between them.
    """

    def __init__(self) -> None:
        self._firsts = array("Q")
        self._lasts = array("Q")

    def __bool__(self) -> bool:
        return bool(self._firsts)

    def has_after(self, seq: int) -> bool:
        """Whether something was passed over behind a sequence."""
        return bool(self._lasts) and self._lasts[-1] > seq

    def add(self, first: int, last: int) -> None:
        """A range behind all others; an empty one counts for nothing."""
        if first > last:
            return
        if len(self._lasts) == _RANGES:
            self._lasts[-1] = last
        else:
            self._firsts.append(first)
            self._lasts.append(last)

    def take(self, upto: int, holes: Holes) -> list[Lost]:
        """Forget the ranges up to a sequence, and return what of them the stream does not have.

        That may be lost: it was of others, or deleted too early. The last of more than `_TOLD` stands for all
        that follow, with what was delivered between them.

        Args:
            holes: what the stream has not had since the cursor was at `upto`.
        """
        count = bisect_right(self._lasts, upto)
        firsts, lasts = self._firsts[:count], self._lasts[:count]
        del self._firsts[:count], self._lasts[:count]
        found: list[Lost] = []
        index = 0
        while index < count and (lost := holes.within(firsts[index], lasts[-1])):
            if len(found) == _TOLD:
                found[-1] = found[-1]._replace(last=lost.last)
                break
            index = bisect_left(lasts, lost.first)
            if lost := holes.within(firsts[index], lasts[index]):  # else it was delivered before this range
                found.append(lost._replace(reason="uncertain"))
            index += 1
        return found
