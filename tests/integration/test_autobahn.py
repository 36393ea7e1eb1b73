"""The frame layer before the Autobahn|Testsuite. `make autobahn` runs all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.autobahn.cases import patterns
from tests.autobahn.run import run
from tests.integration.conftest import Serve
from tests.wire import Peer, request

# The edges of the sizes, whole, in fragments and in pieces of a stream, and each kind of payload.
LIMITS = "9.1.1,9.1.6,9.2.6,9.3.1,9.3.9,9.4.1,9.5.1,9.6.6,9.7.1,9.8.6"
COMPRESSED = "12.1.1,12.1.6,12.1.11,12.2.4,12.3.5,12.4.3,12.5.3"
AGREEMENTS = "13.1.3,13.2.3,13.3.3,13.4.3,13.5.3,13.6.3,13.7.3"
SECONDS = 200.0

pytestmark = pytest.mark.timeout(2400)  # also for a machine that must build Python 2.7 first


@pytest.mark.parametrize(
    "chosen", ["1-7,10", LIMITS, f"{COMPRESSED},{AGREEMENTS}"], ids=["base", "limits", "deflate"]
)
def test_autobahn(chosen: str, tmp_path: Path) -> None:
    """Every case is OK, or of those that the specification leaves open, and ends as it should."""
    verdict = run(patterns(chosen), tmp_path, SECONDS)
    assert verdict.bad == [], verdict.table()
    assert verdict.results


def test_no_echo_unless_asked_for(serve: Serve) -> None:
    """A server that is not under test has no such path."""
    server = serve(WS_DEMO_FEED="false")
    assert server.get("/echo")[0] == 404
    with Peer(server.port) as peer:
        answer = peer.send(request(path="/echo")).http()
    assert answer.status == 404
