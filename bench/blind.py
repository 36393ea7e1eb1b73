"""`gunicorn -c bench/blind.py`: the server without what counts, measures or checks; for comparison.

What protects it stays: reconciliation, and the sample of each second that admission needs. So do the counts
of what came from NATS, and of pings. Its `/metrics` says nothing of what is not counted.
"""

import runpy
from pathlib import Path
from typing import Any

globals().update(runpy.run_path(str(Path(__file__).parents[1] / "gunicorn.conf.py")))

_after_fork = globals()["post_fork"]


def post_fork(server: Any, worker: Any) -> None:
    """The worker has built nothing yet."""
    _after_fork(server, worker)
    worker.is_observed = False
