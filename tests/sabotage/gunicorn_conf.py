"""`gunicorn -c tests/sabotage/gunicorn_conf.py`: the server with faults, see `tests.sabotage`."""

import os
import runpy
from pathlib import Path
from typing import Any

globals().update(runpy.run_path(str(Path(__file__).parents[2] / "gunicorn.conf.py")))


def post_worker_init(worker: Any) -> None:
    """The parts are there, and nothing runs yet."""
    from tests.sabotage import sabotage

    sabotage(worker.services, os.environ)
