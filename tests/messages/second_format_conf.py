"""`gunicorn -c tests/messages/second_format_conf.py`: the server with the toy format beside its own."""

import runpy
from typing import Any

globals().update(runpy.run_module("odinws.gunicorn_conf"))

_after_fork = globals()["post_fork"]


def post_fork(server: Any, worker: Any) -> None:
    """The worker has built nothing yet."""
    _after_fork(server, worker)
    from odinws.messages.wire_format import BY_SUBPROTOCOL
    from tests.messages.test_second_format import LineFormat

    BY_SUBPROTOCOL["lines"] = LineFormat
