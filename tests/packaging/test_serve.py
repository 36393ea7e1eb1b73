"""`odinws serve` and the package's gunicorn configuration, from a directory with nothing in it but data."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from odinws import cli
from odinws.harness.process import STOP_SECONDS
from tests.server import ROOT, Server, wait_for

SERVE = (sys.executable, "-m", "odinws", "serve")
BY_MODULE = (sys.executable, "-m", "gunicorn", "-c", "python:odinws.gunicorn_conf")


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """A server that reads files named relative to where it starts."""
    (tmp_path / "secret").write_text("not a secret, but 32 bytes long.")
    (tmp_path / "flags.json").write_text((ROOT / "conf/flags.json").read_text())
    return {
        "PYTHONPATH": str(ROOT),
        "WS_FLAGS_FILE": "flags.json",
        "WS_JWT_SECRET_FILE": "secret",
        "LOG_FORMAT": "json",
    }


@pytest.mark.parametrize("command", [SERVE, BY_MODULE], ids=["odinws serve", "gunicorn"])
def test_it_needs_no_checkout(tmp_path: Path, settings: dict[str, str], command: tuple[str, ...]) -> None:
    """Keys, flags, the embedded NATS and the demo feed come up anywhere, and all ends in order."""
    server = Server(settings, command=command, directory=tmp_path)
    try:
        server.start()
        [up] = [line for line in _lines(server) if line["message"] == "odinws is up"]
        assert up["strategy"] == "sync-dict 2 of 2 workers, by flags.json"
        assert len(server.workers()) == 2
        server.signal(signal.SIGTERM)
        assert server.wait(STOP_SECONDS) == 0
    finally:
        server.stop()


def test_gunicorns_options_are_taken(tmp_path: Path, settings: dict[str, str]) -> None:
    """As gunicorn takes them; the process itself has become its arbiter."""
    command = (*SERVE, "--pid", "arbiter.pid")
    server = Server(settings, command=command, directory=tmp_path)
    try:
        server.start()
        assert int((tmp_path / "arbiter.pid").read_text()) == server.pid
    finally:
        server.stop()


def test_a_reload_reads_the_configuration_anew(tmp_path: Path, settings: dict[str, str]) -> None:
    """SIGHUP looks at the keys again before workers are replaced: those that can't be used end the server."""
    server = Server(settings, command=SERVE, directory=tmp_path)
    try:
        server.start()
        before = set(server.workers())
        server.signal(signal.SIGHUP)
        wait_for(lambda: not before & set(server.workers()), STOP_SECONDS, "new workers")
        (tmp_path / "secret").write_text("short")
        server.signal(signal.SIGHUP)
        assert server.wait(STOP_SECONDS) != 0
        assert "odinws: secret: a shared secret of 5 bytes; expected at least 32" in server.log()
    finally:
        server.stop()


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It says whose options they are."""
    assert cli.main(["serve", option]) == 0
    assert "OPTIONS are those of gunicorn" in capsys.readouterr().out


def test_a_wrong_option_is_gunicorns_to_tell(tmp_path: Path) -> None:
    """No option is taken apart on the way: this one has an `h` in it."""
    ended = subprocess.run(
        [*SERVE, "--no-such-option", "-bhost:1"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=STOP_SECONDS,
        check=False,
    )
    assert ended.returncode == 2
    assert "unrecognized arguments: --no-such-option" in ended.stderr


def test_what_is_not_installed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says what to install, for `serve` and for a verb that misses its library."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert cli.main(["serve"]) == 1
    assert capsys.readouterr().err == "odinws: gunicorn is not installed: pip install 'odinws[server]'\n"
    monkeypatch.setitem(sys.modules, "nats.errors", None)
    monkeypatch.delitem(sys.modules, "odinws.check", raising=False)
    assert cli.main(["check"]) == 1
    assert capsys.readouterr().err == "odinws: nats is not installed: pip install 'odinws[server]'\n"


def _lines(server: Server) -> list[dict[str, str]]:
    return [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
