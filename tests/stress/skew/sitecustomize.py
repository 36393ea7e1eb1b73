"""A wall clock that a test can shift: Python runs this at its start when PYTHONPATH names this directory.

`time.time` and `time.time_ns` of all processes of a server are off by the seconds in one small shared file,
at the same instant in all of them. Monotonic clocks stay as they are, as when a machine's clock is set. What
C code asks the kernel for (the time of NATS, of file systems, of `datetime.now`) stays right.
"""

import mmap
import os
import struct
import time

_SECONDS = struct.Struct("d")
_true_time, _true_time_ns = time.time, time.time_ns

with open(os.environ["ODINWS_SKEW_FILE"], "rb") as _file:
    _shared = mmap.mmap(_file.fileno(), _SECONDS.size, prot=mmap.PROT_READ)


def _skew() -> float:
    seconds: float = _SECONDS.unpack_from(_shared)[0]
    return seconds


def _skewed_time() -> float:
    return _true_time() + _skew()


def _skewed_time_ns() -> int:
    return _true_time_ns() + int(_skew() * 1e9)


time.time, time.time_ns = _skewed_time, _skewed_time_ns
