"""One expensive look at a time in the whole server, by a lock that falls with the process that holds it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import msgspec

from odinws.errors import OdinError
from odinws.shared.memory import unnamed_file

_ROOM = 128  # bytes; blanks behind JSON are JSON


class BusyError(OdinError):
    """Somebody else looks into the server now.

    Attributes:
        message: who, and until when.
        retry_after_seconds: when it is likely to be over, at least 1.
    """

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_seconds = retry_after_seconds


class _Holder(NamedTuple):
    verb: str
    until: float  # Unix seconds


class DebugLock:
    """Made before the fork; each process takes it for itself."""

    def __init__(self) -> None:
        self._file = unnamed_file()
        self._mine = False  # a record lock is held per process: within one a flag is needed

    @contextmanager
    def held(self, verb: str, seconds: float) -> Iterator[None]:
        """Hold the lock.

        Args:
            verb: what is to be done.
            seconds: how long it takes.

        Raises:
            BusyError: somebody else has it.
        """
        self._take()
        try:
            holder = msgspec.json.encode(_Holder(verb, time.time() + seconds))
            os.pwrite(self._file.fileno(), holder.ljust(_ROOM), 0)
            yield
        finally:
            self._mine = False
            fcntl.lockf(self._file, fcntl.LOCK_UN)

    def _take(self) -> None:
        if self._mine:
            raise self._busy()
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise self._busy() from None
        self._mine = True

    def _busy(self) -> BusyError:
        what, left = "another look", 1.0
        with suppress(msgspec.DecodeError):
            holder = msgspec.json.decode(os.pread(self._file.fileno(), _ROOM, 0), type=_Holder)
            what, left = f"a {holder.verb}", max(1.0, holder.until - time.time())
        return BusyError(f"{what} is under way, one at a time: try again in {left:.0f} s", left)
