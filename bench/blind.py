"""`gunicorn -c bench/blind.py`: the server without all that counts, measures or checks; for comparison.

What protects it stays: reconciliation, and the sample of each second that admission needs. Its `/metrics`
says nothing of what is not counted.
"""

import runpy
from pathlib import Path
from typing import Any

globals().update(runpy.run_path(str(Path(__file__).parents[1] / "gunicorn.conf.py")))

_COUNTING = (
    "count_frames",
    "count_pass",
    "count_received",
    "count_sends",
    "observe_gc",
    "observe_lag",
    "observe_ping",
    "observe_stall",
)


def post_worker_init(worker: Any) -> None:
    """The parts are there, and nothing runs yet."""
    from odinws.board.row import Row

    for name in _COUNTING:
        getattr(Row, name)  # it is still called so
        setattr(Row, name, _nothing)
    services = worker.services
    services._stalls.start = services.collector.start = _nothing
    services.hub.slowest.floor = services.hub.slowest.until = float("inf")
    services._audit.run = services._recorder.look = _nothing


def _nothing(*_: Any) -> int:
    return 0
