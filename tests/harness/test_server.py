"""An odinws server as a process."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil
import pytest

from odinws.harness.ports import free_port
from odinws.harness.process import ProcessError
from odinws.harness.server import Server, clean_environ
from tests.harness.http_server import ready_at_third
from tests.nats import NatsServer


def test_only_settings_that_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in our environment for odinws is not for this server."""
    for name in ("WS_WORKERS", "JS_STREAM_NAME", "NATS_URL", "LOG_LEVEL", "ENVIRONMENT"):
        monkeypatch.setenv(name, "ours")
    monkeypatch.setenv("OTHER", "ours")
    environ = clean_environ({"WS_WORKERS": "3"})
    assert (environ["WS_WORKERS"], environ["OTHER"]) == ("3", "ours")
    assert not {"JS_STREAM_NAME", "NATS_URL", "LOG_LEVEL", "ENVIRONMENT"} & environ.keys()


def test_ready_is_a_status_of_200(tmp_path: Path) -> None:
    """A server that answers 503 is waited for."""
    port = free_port()
    server = Server({}, tmp_path / "log", port=port, command=ready_at_third(port)).start()
    server.wait_ready()
    server.end()
    assert server.log().count("503") == 2


def test_a_server_that_fails_is_quoted(tmp_path: Path) -> None:
    """The end of the log says why a server did not start."""
    command = (sys.executable, "-c", "raise SystemExit('no luck today')")
    with (
        pytest.raises(ProcessError, match="ended with status 1: no luck today"),
        Server({}, tmp_path / "log", command=command),
    ):
        pytest.fail("it cannot be ready")


def test_odinws_serves_and_ends_with_all_its_processes(tmp_path: Path) -> None:
    """It is asked over HTTP; nothing that it started is left behind."""
    with (
        NatsServer(tmp_path / "nats") as nats,
        Server(
            {"NATS_URL": nats.url, "WS_WORKERS": "1", "WS_DRAIN_SECONDS": "0"}, tmp_path / "log"
        ) as server,
    ):
        assert server.get("/livez").status == 200
        (worker,) = server.json("/stats")["workers"]
        assert server.metrics().total("ws_connections") == 0
        assert server.ask("/metrics", {"Accept-Encoding": "identity"}).status == 200
        tree = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        assert worker["pid"] in {process.pid for process in tree}
        assert server.ws == f"ws://127.0.0.1:{server.port}/ws"
    psutil.wait_procs(tree, timeout=60)
    assert not any(process.is_running() for process in tree)
