"""Sets the wall clock of a server under test, see `skew/sitecustomize.py`."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

HOUR_SECONDS = 3600.0
_SECONDS = struct.Struct("d")


class Clock:
    """A clock that is correct until it is set.

    Args:
        path: of the file that holds the offset, shared with the server's processes.

    Attributes:
        settings: environment variables that make a server use this clock.
    """

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(_SECONDS.size))
        self.settings = {
            "PYTHONPATH": str(Path(__file__).with_name("skew")),
            "ODINWS_SKEW_FILE": str(path),
        }
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _SECONDS.size)

    def set(self, off_seconds: float) -> None:
        """Set the offset from the true time, in all processes at once."""
        _SECONDS.pack_into(self._shared, 0, off_seconds)
