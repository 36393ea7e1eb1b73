"""What a socket did not take yet: a queue bounded in bytes. Pure.

A connection has an outbox only while its socket is full. The first chunk may be half sent; everything
else in it is whole frames, so a frame is never cut by another and never interleaved.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from odinws import frames

_CHUNKS_PER_SEND = 64  # well below IOV_MAX (1024)


class Outbox:
    """Chunks of whole frames that wait for their socket.

    Args:
        chunk: whole frames, of which the socket took the first `sent` bytes (less than all).
        limit_bytes: how much may wait in all; the first chunk alone may be more.
    """

    __slots__ = ("_chunks", "_limit_bytes", "_sent", "size_bytes")

    def __init__(self, chunk: bytes, sent: int, limit_bytes: int) -> None:
        self._chunks = deque((chunk,))
        self._sent = sent
        self._limit_bytes = limit_bytes
        self.size_bytes = len(chunk) - sent

    def offer(self, chunk: bytes) -> bool:
        """Queue whole frames. False: they would not fit, and nothing was queued."""
        if self.size_bytes and self.size_bytes + len(chunk) > self._limit_bytes:
            return False
        self.append(chunk)
        return True

    def append(self, chunk: bytes) -> None:
        """Queue whole frames beyond the bound: for the last ones that a connection says."""
        self._chunks.append(chunk)
        self.size_bytes += len(chunk)

    def waiting(self) -> list[bytes | memoryview]:
        """The next bytes for the socket, for one `sendmsg`."""
        chunks: list[bytes | memoryview] = list(islice(self._chunks, _CHUNKS_PER_SEND))
        if self._sent:
            chunks[0] = memoryview(self._chunks[0])[self._sent :]
        return chunks

    def advance(self, taken: int) -> None:
        """Forget `taken` bytes that the socket took of what is waiting."""
        self.size_bytes -= taken
        self._sent += taken
        while self._chunks and self._sent >= len(self._chunks[0]):
            self._sent -= len(self._chunks.popleft())

    def cut(self) -> tuple[bytes, int]:
        """Give up all but the frame under way.

        Returns:
            The rest of the frame that is half sent (empty if none is), and how many whole frames
            were given up.
        """
        if not self._chunks:
            return b"", 0
        first = self._chunks.popleft()
        end = frames.boundary(first, self._sent)
        rest = first[self._sent : end]
        dropped = frames.count(first, end) + sum(frames.count(chunk) for chunk in self._chunks)
        self._chunks.clear()
        self._sent = 0
        self.size_bytes = 0
        return rest, dropped
