"""One dear look at a time in the whole server, by a lock on a file that falls with whoever holds it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from odinws.debug.errors import DebugError


class _Holder(NamedTuple):
    verb: str
    until: float  # Unix seconds


@contextmanager
def turn(directory: Path, verb: str, seconds: float) -> Iterator[None]:
    """Hold the turn.

    Args:
        directory: of the server.
        verb: what is to be done.
        seconds: how long it takes.

    Raises:
        DebugError: 409, somebody else has it: who, and until when.
    """
    # A descriptor of its own for each, so that two requests of one worker exclude each other as well.
    descriptor = os.open(directory / "turn", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(os.pread(descriptor, 1024, 0)) from None
        holder = msgspec.json.encode(_Holder(verb, time.time() + seconds))
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, holder, 0)
        yield
    finally:
        os.close(descriptor)


def _busy(raw: bytes) -> DebugError:
    what, left = "another look", 1.0
    with suppress(msgspec.DecodeError):
        holder = msgspec.json.decode(raw, type=_Holder)
        what, left = f"a {holder.verb}", max(1.0, holder.until - time.time())
    message = f"{what} is under way, one at a time: try again in {left:.0f} s"
    return DebugError(409, "busy", message, retry_after_seconds=left)
