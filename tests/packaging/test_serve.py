"""`odinws serve` and the package's gunicorn configuration, from a directory with nothing in it but data."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from odinws import cli
from tests.access.material import ec_key
from tests.certificate import self_signed
from tests.server import GUNICORN, PATIENCE_SECONDS, ROOT, Server, wait_for
from tests.wire import Peer

SERVE = (sys.executable, "-m", "odinws", "serve")
BY_MODULE = (sys.executable, "-m", "gunicorn", "-c", "python:odinws.gunicorn_conf")
USABLE = "import runpy\nglobals().update(runpy.run_module('odinws.gunicorn_conf'))\n"  # a configuration


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """A server that reads files named relative to where it starts."""
    return furnish(tmp_path)


def furnish(directory: Path) -> dict[str, str]:
    """Put these files there; the settings that name them."""
    (directory / "secret").write_text("not a secret, but 32 bytes long.")
    (directory / "flags.json").write_text((ROOT / "conf/flags.json").read_text())
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
        assert server.wait(PATIENCE_SECONDS) == 0
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


@pytest.mark.parametrize("command", [SERVE, BY_MODULE], ids=["odinws serve", "gunicorn"])
def test_a_reload_looks_before_workers_are_replaced(
    tmp_path: Path, settings: dict[str, str], command: tuple[str, ...]
) -> None:
    """With keys that can't be used, SIGHUP changes nothing; a line says why, and the next one may go well."""
    server = Server(settings, command=command, directory=tmp_path)
    try:
        server.start()
        before = set(server.workers())
        usable = (tmp_path / "secret").read_text()
        (tmp_path / "secret").write_text("short")
        server.signal(signal.SIGHUP)
        [refused] = wait_for(lambda: _refusals(server), PATIENCE_SECONDS, "a refused reload")
        assert refused["problem"] == (
            "WS_JWT_SECRET_FILE='secret' is not valid: a shared secret of 5 bytes; expected at least 32"
        )
        assert set(server.workers()) == before
        assert f"reload refused: {refused['problem']}" in server.json("/health")["warnings"]
        [event] = [event for event in server.json("/stats")["events"] if event["kind"] == "reload_refused"]
        assert refused["problem"].startswith(event["text"])
        (tmp_path / "secret").write_text(usable)
        server.signal(signal.SIGHUP)
        wait_for(lambda: not before & set(server.workers()), PATIENCE_SECONDS, "new workers")
        assert len(_refusals(server)) == 1
        assert server.json("/health")["warnings"] == []
    finally:
        server.stop()


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A server, and the configuration that it reads again when it is reloaded."""
    directory = tmp_path_factory.mktemp("configured")
    conf = directory / "conf.py"
    conf.write_text(USABLE)
    command = (*GUNICORN[:-1], conf.name, "--env", "MARK=1")
    with Server(furnish(directory), command=command, directory=directory) as server:
        yield server, conf


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ("import os; os.environ['WS_WORKERS'] = 'many'", "WS_WORKERS='many' is not valid: expected a whole"),
        ("workers = 3", "gunicorn is told to run 3 workers (-w, --workers or a configuration file), but "),
        ("certfile = __file__", "gunicorn's certfile='"),
        ("1 +", "gunicorn can't read its configuration: SyntaxError: invalid syntax"),
        ("timeout = 'soon'", "gunicorn can't read its configuration: Error: invalid literal for int()"),
        ("import nowhere", "gunicorn can't read its configuration: ModuleNotFoundError: No module named"),
        ("worker_class = 'nowhere'", "class uri 'nowhere' invalid or not found"),
        ("pidfile = '/nowhere/pid'", "[Errno 2] No such file or directory: '/nowhere/"),
        ("bind = [bind, '127.0.0.1:0']", "a reload can replace all addresses (-b), but not some: restart"),
        ("bind = '192.0.2.1:80'", "nobody can listen at ('192.0.2.1', 80): Cannot assign"),
    ],
)
def test_a_reload_that_reads_nonsense_changes_nothing(
    configured: tuple[Server, Path], broken: str, problem: str
) -> None:
    """Whatever is wrong, the workers stay, with the environment they have."""
    server, conf = configured
    before, count = server.workers(), len(_refusals(server))
    conf.write_text(f"{USABLE}{broken}\n")
    server.signal(signal.SIGHUP)
    wait_for(lambda: len(_refusals(server)) > count, PATIENCE_SECONDS, "a refused reload")
    refused = _refusals(server)[-1]["problem"]
    assert refused.startswith(problem)
    assert "Traceback" not in refused
    assert server.workers() == before
    assert server.poll() is None
    health = server.json("/health")
    assert health["status"] == "degraded"
    assert f"reload refused: {refused}" in health["warnings"]


def test_workers_of_a_reload_that_fail_end_nobody(tmp_path: Path) -> None:
    """What no check can see: the others serve on, however long it takes, and the next reload mends it."""
    conf = tmp_path / "conf.py"
    conf.write_text(USABLE)
    quiet = {"WS_HEARTBEAT_SECONDS": "300", "WS_IDLE_SECONDS": "600"}
    server = Server(quiet, command=(*GUNICORN[:-1], "conf.py"), directory=tmp_path)
    try:
        server.start()
        before = set(server.workers())
        with Peer(server.port) as peer:
            peer.upgrade()
            conf.write_text(f"{USABLE}def post_worker_init(worker):\n    raise ValueError('not today')\n")
            server.signal(signal.SIGHUP)
            wait_for(lambda: _warned(server, "reload: no new worker"), PATIENCE_SECONDS, "a warning")
            assert set(server.workers()) >= before
            assert server.get("/readyz")[0] == 200
            assert peer.ask("heartbeat")["type"] == "pong"
            assert any("not today" in event["text"] for event in server.json("/stats")["events"])
            conf.write_text(USABLE)
            server.signal(signal.SIGHUP)
            assert peer.closing().code == 1012
        wait_for(lambda: len(found := set(server.workers())) == 2 and not found & before, 10, "new workers")
        assert server.json("/health")["warnings"] == []
    finally:
        server.stop()


def test_a_reload_with_a_key_that_does_not_fit(tmp_path: Path) -> None:
    """The workers stay, and new clients come in over TLS as before."""
    certificate, key = self_signed(tmp_path)
    context, usable = ssl.create_default_context(cafile=certificate), key.read_bytes()
    server = Server({}, command=(*SERVE, "--certfile", str(certificate), "--keyfile", str(key)))

    def status() -> Any:
        try:
            with urllib.request.urlopen(f"https://127.0.0.1:{server.port}/readyz", context=context) as answer:
                return json.load(answer)["status"]
        except OSError:
            return None

    try:
        server.launch()
        wait_for(lambda: status() == "ready", PATIENCE_SECONDS, "readiness")
        before = set(server.workers())
        key.write_bytes(ec_key("first").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        server.signal(signal.SIGHUP)
        wait_for(
            lambda: _warned(server, "reload refused: gunicorn's certfile="), PATIENCE_SECONDS, "a warning"
        )
        assert set(server.workers()) == before
        assert status() == "ready"
        key.write_bytes(usable)
        server.signal(signal.SIGHUP)
        wait_for(
            lambda: len(found := set(server.workers())) == 2 and not found & before,
            PATIENCE_SECONDS,
            "new workers",
        )
        assert server.json("/health")["warnings"] == []
        assert status() == "ready"
    finally:
        server.stop()


@pytest.mark.parametrize("option", ["-w3", "--workers=1"])
def test_gunicorns_number_of_workers_must_be_ours(
    tmp_path: Path, settings: dict[str, str], option: str
) -> None:
    """A server of which it is not would never be ready: one line says which of the two counts."""
    ended = _run(tmp_path, settings | {"WS_WORKERS": "2", "WS_ADDR": "127.0.0.1:0"}, option)
    assert ended.returncode == 1
    told = [line for line in ended.stderr.splitlines() if line.startswith("odinws: ")]
    assert told == [
        f"odinws: gunicorn is told to run {option[-1]} workers (-w, --workers or a configuration file), but "
        "WS_WORKERS=2 counts: leave out gunicorn's option and set WS_WORKERS"
    ]


def test_the_same_number_of_workers_is_taken(tmp_path: Path, settings: dict[str, str]) -> None:
    """And WEB_CONCURRENCY, which a platform may set for all it runs, counts for nothing."""
    server = Server(settings | {"WEB_CONCURRENCY": "5"}, command=(*SERVE, "-w2"), directory=tmp_path)
    try:
        server.start()
        assert len(server.workers()) == 2
        [said] = [line for line in _lines(server) if "WEB_CONCURRENCY" in line["message"]]
        assert (said["message"], said["ignored"]) == ("WS_WORKERS wins over WEB_CONCURRENCY", 5)
    finally:
        server.stop()


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It says whose options they are."""
    assert cli.main(["serve", option]) == 0
    assert "OPTIONS are those of gunicorn" in capsys.readouterr().out


def test_a_wrong_option_is_gunicorns_to_tell(tmp_path: Path) -> None:
    """No option is taken apart on the way: this one has an `h` in it."""
    ended = _run(tmp_path, {"PYTHONPATH": str(ROOT)}, "--no-such-option", "-bhost:1")
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


def _run(directory: Path, settings: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    """A start that is to fail."""
    return subprocess.run(
        [*SERVE, *options],
        cwd=directory,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def _warned(server: Server, words: str) -> bool:
    return any(words in warning for warning in server.json("/health")["warnings"])


def _refusals(server: Server) -> list[dict[str, Any]]:
    return [line for line in _lines(server) if line["message"].startswith("reload refused")]


def _lines(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
