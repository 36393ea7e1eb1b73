"""The record of a run: JSON lines, one per second, for whoever judges the server.

The first line is `{"bounds_ms": [...], "names": [...], "seed": n}`: the upper bounds of the buckets, of which
the last also holds all that is longer. Each other line has `t` (seconds since 1970), the counts and the
histograms, both cumulative, and what the busiest process of the swarm used in that second. The last one
has `"final": true`, `limited` and `why`; nobody is connected any more then.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from odinws.swarm.histogram import BOUNDS_MS
from odinws.swarm.limits import Verdict
from odinws.swarm.tally import TIMES


class Record:
    """A file that is written line by line.

    Raises:
        OSError: it can't be written.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self._file = path.open("w")
        self._write({"bounds_ms": BOUNDS_MS, "names": TIMES, "seed": seed})

    def second(self, totals: Mapping[str, Any]) -> None:
        """The totals as they are now."""
        self._write({"t": round(time.time(), 3), **totals})

    def end(self, totals: Mapping[str, Any], verdict: Verdict) -> None:
        """The last line."""
        self._write({"t": round(time.time(), 3), **totals, "final": True, **verdict._asdict()})
        self._file.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
        self._file.flush()
