"""Memory that the processes of a server share. It has no name in any file system.

So neither a full disk nor one that is read-only nor a quota can take it away: to write to a page of a mapped
file for which there is no room ends a process with SIGBUS.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import IO


def unnamed_file() -> IO[bytes]:
    """An empty file in memory; elsewhere than on Linux an unlinked one on disk.

    POSIX record locks on it are held per process and fall with the process.

    Raises:
        OSError: the system gives none.
    """
    if not hasattr(os, "memfd_create"):
        return tempfile.TemporaryFile(buffering=0)
    return open(os.memfd_create("odinws"), "r+b", buffering=0)


def shared_memory(file: IO[bytes], size: int) -> mmap.mmap:
    """Map a file as long as `size` bytes, zeros at first. Pages that were never written cost nothing.

    Raises:
        OSError: the system gives none.
    """
    file.truncate(size)
    return mmap.mmap(file.fileno(), size)
