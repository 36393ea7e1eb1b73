"""The answer of a run: on a terminal, as `result.json`, and as `report.html`."""

from __future__ import annotations

from pathlib import Path

import msgspec

from odinws.experiment.record import read
from odinws.experiment.report.page import FILE as PAGE
from odinws.experiment.report.page import page
from odinws.experiment.result import FILE, Result
from odinws.experiment.verdict import judge


def finish(directory: Path) -> Result:
    """Judge a run by its records and write `result.json` and `report.html` beside them.

    Raises RecordError where records are missing or broken, OSError where the directory can't be written.
    """
    records = read(directory)
    result = judge(records)
    (directory / FILE).write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
    (directory / PAGE).write_text(page(records, result))
    return result
