"""However a server is stopped, it ends soon, closes its connections properly, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import strategies
from odinws.settings import without_credentials
from tests.integration.conftest import Serve
from tests.ledger import Publisher, publish
from tests.nats import NatsServer
from tests.server import PATIENCE_SECONDS, ROOT, Server, free_port, wait_for
from tests.swarm import Swarm
from tests.wire import Peer

CLIENTS = 50


class Home(NamedTuple):
    """Private places for whatever a server may write."""

    root: Path

    @property
    def settings(self) -> dict[str, str]:
        """The environment that names them."""
        names = ("TMPDIR", "HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME")
        return {name: str(self.root / name) for name in (*names, "XDG_DATA_HOME")}

    def left(self) -> list[str]:
        """What lies in them."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.glob("*/**/*"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Empty private places."""
    home = Home(tmp_path / "home")
    for path in home.settings.values():
        Path(path).mkdir(parents=True)
    return home


def children(process: psutil.Process) -> list[psutil.Process]:
    """A process and all below it."""
    return [process, *process.children(recursive=True)]


def alive(processes: list[psutil.Process]) -> list[str]:
    """Those that still run, in words."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {process.cmdline()[:4]}")
    return found


def listening(port: int) -> bool:
    """Whether anybody accepts connections there."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def nothing_is_left(processes: list[psutil.Process], port: int, home: Home) -> None:
    """No process, no port, no file, soon."""
    with contextlib.suppress(AssertionError):
        wait_for(lambda: not alive(processes), PATIENCE_SECONDS, "the end of all processes")
    assert alive(processes) == []
    assert not listening(port)
    with contextlib.suppress(AssertionError):
        wait_for(lambda: not home.left(), PATIENCE_SECONDS, "empty directories")
    assert home.left() == []


@pytest.fixture
def server(serve: Serve, home: Home) -> Server:
    """With an embedded NATS and the demo feed, two workers."""
    server = serve(**home.settings)
    assert home.left(), "the embedded NATS keeps its data there"
    return server


@pytest.fixture
def swarm(server: Server) -> Iterator[Swarm]:
    """Fifty clients that get the demo feed."""
    with Swarm(server.port) as swarm:
        swarm.connect(range(CLIENTS))
        swarm.subscribe(range(CLIENTS), ["token.BTC", "token.ETH"])
        swarm.settle()
        wait_for(lambda: swarm.messages() >= 2 * CLIENTS, 5, "the demo feed")
        yield swarm


def all_closed_with(swarm: Swarm, code: int, count: int = CLIENTS) -> None:
    """All connections ended with this close code, and nothing was wrong before."""
    with contextlib.suppress(AssertionError):
        wait_for(lambda: not swarm.open(), PATIENCE_SECONDS, "the clients' end")
    assert swarm.close_codes() == {code: count}
    assert swarm.problems() == []


# -- the end ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_an_orderly_stop(server: Server, swarm: Swarm, home: Home, number: signal.Signals) -> None:
    """Status 0 within the time, 1001 for every client, and nothing is left."""
    processes = server.processes()
    assert len(processes) == 5, "arbiter, companion, nats-server and two workers"
    server.signal(number)
    assert server.wait(PATIENCE_SECONDS) == 0
    nothing_is_left(processes, server.port, home)
    all_closed_with(swarm, 1001)
    assert "Traceback" not in server.log()
    assert "[error" not in server.log()


def test_a_stop_does_not_wait_for_clients_that_do_not_answer(server: Server, home: Home) -> None:
    """Neither for one that reads nothing, nor for one amid a request, nor for one that says nothing."""
    processes = server.processes()
    with Peer(server.port, receive_buffer_bytes=2048) as deaf, Peer(server.port) as slow, Peer(server.port):
        deaf.upgrade()
        slow.send(b"GET /health HTTP/1.1\r\nHost:")
        server.signal(signal.SIGTERM)
        assert server.wait(PATIENCE_SECONDS) == 0
        nothing_is_left(processes, server.port, home)
        assert deaf.closing().code == 1001


def test_an_impatient_stop(server: Server, swarm: Swarm, home: Home) -> None:
    """Ctrl-C, again and again: the end is still an orderly one."""
    processes = server.processes()
    for _ in range(5):
        with contextlib.suppress(ProcessLookupError):
            server.signal(signal.SIGINT)
        time.sleep(0.05)
    server.wait(PATIENCE_SECONDS)
    nothing_is_left(processes, server.port, home)
    all_closed_with(swarm, 1001)


def test_new_clients_are_turned_away_while_it_stops(server: Server, swarm: Swarm) -> None:
    """No client gets in after the close frame: each is refused by the port or by 503, and none hangs."""
    stop = threading.Timer(0.05, server.signal, (signal.SIGTERM,))
    stop.start()
    outcomes = set()
    number = 1000
    while server.poll() is None:
        swarm.connect(number)
        swarm.settle()
        life = swarm.now[number]
        outcomes.add(life.refused or ("open" if life.epoch else "no answer"))
        number += 1
    assert outcomes <= {"open", "no answer", 503}
    wait_for(lambda: not swarm.open(), 1, "the clients' end")
    codes = swarm.close_codes()
    assert codes[1001] == sum(codes.values())


def test_a_killed_arbiter_takes_all_with_it(server: Server, swarm: Swarm, home: Home) -> None:
    """The workers drain as for an orderly stop."""
    processes = server.processes()
    server.signal(signal.SIGKILL)
    assert server.wait() == -signal.SIGKILL
    nothing_is_left(processes, server.port, home)
    all_closed_with(swarm, 1001)


def test_all_killed_but_the_companion(server: Server, home: Home) -> None:
    """When arbiter and workers are killed at once, the companion still cleans up."""
    processes = server.processes()
    for pid in [server.pid, *server.workers()]:
        os.kill(pid, signal.SIGKILL)
    server.wait()
    nothing_is_left(processes, server.port, home)


def test_a_worker_that_hangs_does_not_keep_the_companion(server: Server, home: Home) -> None:
    """The arbiter is killed while a worker stands still: companion, nats-server and data go all the same."""
    processes = server.processes()
    hanging = server.workers()[0]
    os.kill(hanging, signal.SIGSTOP)
    try:
        server.signal(signal.SIGKILL)
        server.wait()
        others = [process for process in processes if process.pid != hanging]
        wait_for(lambda: not alive(others), PATIENCE_SECONDS, "the end of all others")
        wait_for(lambda: not home.left(), PATIENCE_SECONDS, "empty directories")
    finally:
        os.kill(hanging, signal.SIGKILL)


@pytest.mark.parametrize("away", [NatsServer.pause, NatsServer.kill])
def test_a_stop_while_nats_is_away(
    nats: NatsServer, serve: Serve, home: Home, away: Callable[[NatsServer], None]
) -> None:
    """Neither a NATS that stands still nor one that is gone holds the end up."""
    server = serve(**home.settings, NATS_URL=nats.url)
    processes = server.processes()
    with Swarm(server.port) as swarm:
        swarm.connect(range(CLIENTS))
        swarm.settle()
        away(nats)
        wait_for(lambda: server.get("/readyz")[0] == 503, 6, "that it is noticed")
        server.signal(signal.SIGTERM)
        assert server.wait(PATIENCE_SECONDS) == 0
        nothing_is_left(processes, server.port, home)
        all_closed_with(swarm, 1001)


@pytest.fixture
def heeded_interrupt() -> Iterator[None]:
    """What a shell runs in the background ignores SIGINT, and so would a server of ours at its start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded_interrupt")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("seconds", [0.1, 0.3, 0.5, 0.7, 1.0])
def test_a_stop_during_the_start(home: Home, number: signal.Signals, seconds: float) -> None:
    """Whatever it is just doing, it ends, and leaves nothing."""
    server = Server(home.settings)
    server.launch()
    try:
        time.sleep(seconds)
        processes = server.processes()
        server.signal(number)
        server.wait(PATIENCE_SECONDS)
        nothing_is_left(processes, server.port, home)
    finally:
        server.stop()


def test_a_taken_port_ends_the_start(home: Home) -> None:
    """Non-zero, with a reason, and without the companion."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = Server({**home.settings, "WS_ADDR": f"127.0.0.1:{taken.getsockname()[1]}"})
        server.launch()
        try:
            processes = wait_for(lambda: len(found := server.processes()) > 1 and found, 5, "the companion")
            assert server.wait(PATIENCE_SECONDS) != 0
            assert "in use" in server.log()
        finally:
            server.stop()
    nothing_is_left(processes, server.port, home)


# -- what it survives -----------------------------------------------------------------------------------


def test_a_reload_replaces_the_workers(server: Server, swarm: Swarm, home: Home) -> None:
    """SIGHUP: old workers say 1012, new ones serve, NATS stays, nothing is left in the end."""
    old, started = set(server.workers()), server.processes()
    nats = [process for process in started if process.pid not in old]
    server.signal(signal.SIGHUP)
    wait_for(lambda: len(pids := set(server.workers())) == 2 and not pids & old, 15, "new workers")
    all_closed_with(swarm, 1012)
    assert len(alive(nats)) == len(nats) == 3
    wait_for(lambda: server.get("/readyz")[0] == 200, 5, "readiness")
    swarm.connect(range(1000, 1010))
    swarm.subscribe(range(1000, 1010), ["token.BTC"])
    swarm.settle()
    wait_for(lambda: all(life.messages for life in swarm.open()), 5, "the feed")
    stats = server.json("/stats")
    assert stats["connections"] == 10
    assert stats["accepted"] == CLIENTS + 10
    processes = started + server.processes()
    server.signal(signal.SIGTERM)
    assert server.wait(PATIENCE_SECONDS) == 0
    nothing_is_left(processes, server.port, home)


def test_a_killed_worker_costs_its_own_clients(server: Server, swarm: Swarm, home: Home) -> None:
    """They see their end at once; the others go on without a hole; a successor comes."""
    victim, other = server.json("/stats")["workers"]
    processes = server.processes()
    os.kill(victim["pid"], signal.SIGKILL)
    wait_for(lambda: len(swarm.open()) == other["connections"], 2, "the clients' end")
    wait_for(lambda: len(server.workers()) == 2 and victim["pid"] not in server.workers(), 10, "a successor")
    before = swarm.messages()
    wait_for(lambda: swarm.messages() > before, 5, "the feed")
    assert swarm.problems() == []
    processes += server.processes()
    server.signal(signal.SIGTERM)
    assert server.wait(PATIENCE_SECONDS) == 0
    nothing_is_left(processes, server.port, home)


def test_the_embedded_nats_comes_back(server: Server, swarm: Swarm, home: Home) -> None:
    """Killed, it is started again with its data: clients stay, and the feed goes on without a hole."""
    processes = server.processes()
    nats = next(process for process in processes if "nats-server" in process.name())
    sessions = server.metric("ws_feed_sessions_total")
    nats.kill()
    wait_for(lambda: server.metric("ws_feed_sessions_total") == sessions + 2, 10, "both feeds again")
    wait_for(lambda: server.get("/readyz")[0] == 200, 10, "readiness")
    before = swarm.messages()
    wait_for(lambda: swarm.messages() > before, 10, "the feed")
    assert len(swarm.open()) == CLIENTS
    assert swarm.problems() == []
    processes += server.processes()
    server.signal(signal.SIGTERM)
    assert server.wait(PATIENCE_SECONDS) == 0
    nothing_is_left(processes, server.port, home)


def test_a_killed_companion_is_reported_and_leaves_nothing(server: Server, swarm: Swarm, home: Home) -> None:
    """Its nats-server dies with it: health says so, clients stay, and a stop cleans up what it could not."""
    processes = server.processes()
    companion = next(process for process in processes if "odinws.companion" in process.cmdline())
    companion.kill()
    wait_for(lambda: server.get("/readyz")[0] == 503, 5, "that it is noticed")
    assert server.json("/health")["status"] == "unhealthy"
    assert len(swarm.open()) == CLIENTS
    server.signal(signal.SIGTERM)
    assert server.wait(PATIENCE_SECONDS) == 0
    nothing_is_left(processes, server.port, home)


# -- make run ---------------------------------------------------------------------------------------------


@pytest.fixture
def make(tmp_path: Path, home: Home) -> Iterator[Server]:
    """`make run` where the environment is made already."""
    ordinal = tmp_path / "checkout"
    (ordinal / ".venv").mkdir(parents=True)
    for name in ("Makefile", "gunicorn.conf.py", "odinws", "strategies", "conf"):
        (ordinal / name).symlink_to(ROOT / name)
    (ordinal / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (ordinal / ".venv" / "runtime").touch()
    server = Server(home.settings, command=["make", "run"], directory=ordinal)
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM"])
def test_make_run_stops_with_make(make: Server, home: Home, how: str) -> None:
    """Ctrl-C reaches the whole process group as on a terminal; SIGTERM reaches make alone."""
    processes = make.processes()
    assert len(processes) >= 6, "make, arbiter, companion, nats-server and two workers"
    with Swarm(make.port) as swarm:
        swarm.connect(range(CLIENTS))
        swarm.settle()
        if how == "Ctrl-C":
            os.killpg(make.pid, signal.SIGINT)
        else:
            make.signal(signal.SIGTERM)
        make.wait(PATIENCE_SECONDS)
        nothing_is_left(processes, make.port, home)
        all_closed_with(swarm, 1001)


# -- the start ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("WS_SHARD_STRATEGY", "nonsense", strategies.NAMES),
        ("WS_ADDR", "nowhere", ("host:port",)),
        ("WS_ADDR", "127.0.0.1:99999", ("65535",)),
        ("WS_NUM_SHARDS", "0", ("1",)),
        ("WS_NUM_SHARDS", "many", ("number",)),
        ("WS_SHARD_KEY", "colour", ("channel", "connection")),
        ("WS_WORKERS", "-1", ("1",)),
        ("WS_MAX_CONNECTIONS", "1.5", ("number",)),
        ("WS_CPU_REJECT_THRESHOLD", "101", ("100",)),
        ("WS_DEMO_FEED", "perhaps", ("true", "false")),
        ("WS_IDLE_SECONDS", "10", ("WS_HEARTBEAT_SECONDS",)),
        ("NATS_URL", "http://127.0.0.1:4222", ("nats://host:port",)),
        ("JS_STREAM_MAX_AGE", "5 days", ("s", "m", "h")),
        ("LOG_LEVEL", "loud", ("debug", "info", "warning", "error")),
        ("WS_MAX_CONECTIONS", "5", ("WS_MAX_CONNECTIONS",)),
        ("WS_\u00fc\n", "5", ("no setting has this name",)),
    ],
)
def test_a_wrong_setting_stops_the_start(home: Home, name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Non-zero, and one line on stderr with the name, the value and what is allowed."""
    environ = {**os.environ, "WS_ADDR": f"127.0.0.1:{free_port()}", **home.settings, name: value}
    ended = subprocess.run(
        [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert ended.returncode not in (0, None)
    [line] = ended.stderr.splitlines()
    assert ended.stdout == ""
    assert line.startswith("odinws: ")
    known = name.isascii() and "CONECTIONS" not in name
    assert not name.isascii() or name in line
    assert not known or value in line
    for word in allowed:
        assert word in line
    assert home.left() == []


def test_a_service_named_ws_does_not_stop_the_start(serve: Serve) -> None:
    """Its variables, as Kubernetes makes them, are named in a line."""
    address = "tcp://10.96.0.7:3004"
    server = serve(
        WS_PORT=address, WS_SERVICE_HOST="10.96.0.7", WS_SERVICE_PORT="3004", WS_PORT_3004_TCP=address
    )
    [line] = [line for line in server.log().splitlines() if "Kubernetes" in line]
    assert "WS_PORT_3004_TCP" in line
    assert "WS_SERVICE_HOST" in line


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_start_says_what_runs_and_how_to_stop_it(serve: Serve, form: str) -> None:
    """Addresses, strategy, shards, shard key, workers, NATS, and how to stop it, each with its value."""
    server = serve(
        WS_SHARD_STRATEGY="fnv-sharded", WS_NUM_SHARDS="7", WS_SHARD_KEY="connection", LOG_FORMAT=form
    )
    log = server.log()
    if form == "json":
        lines = [json.loads(line) for line in log.splitlines()]
        facts = next(line for line in lines if line["message"] == "odinws is up")
    else:
        block = log.partition("odinws is up\n")[2].partition("\n\n")[0]
        facts = dict(line.split(maxsplit=1) for line in block.splitlines())
    assert facts["websocket"] == server.ws
    assert facts["page"] == server.http + "/"
    assert facts["admin"] == server.admin + "/"
    assert facts["strategy"] == "fnv-sharded"
    assert int(facts["shards"]) == 7
    assert facts["shard_key"] == "connection"
    assert int(facts["workers"]) == 2
    assert facts["nats"].startswith("nats://***@127.0.0.1:")
    assert facts["nats"].endswith("(embedded)")
    assert without_credentials(server.nats_url()) == facts["nats"].removesuffix(" (embedded)")
    assert str(server.pid) in facts["stop"]
    last = wait_for(
        lambda: last_line(server) if server.admin in last_line(server) else "", 10, "the last line"
    )
    if form == "json":
        assert (json.loads(last)["message"], json.loads(last)["page"]) == (
            "all workers accept",
            server.admin + "/",
        )
    else:
        assert last == f"open {server.admin}/"


def last_line(server: Server) -> str:
    """Of its log."""
    return server.log().strip().rpartition("\n")[2]


def names(server: Server) -> list[str]:
    """What kinds of processes run."""
    return sorted("nats" if "nats-server" in each.name() else "python" for each in server.processes())


def test_with_a_nats_url_nothing_is_started_beside_it(nats: NatsServer, serve: Serve) -> None:
    """No nats-server, no companion, no demo feed; passwords in the URL are not logged."""
    server = serve(NATS_URL=nats.url.replace("//", "//user:secret@"))
    assert names(server) == ["python"] * 3
    assert "secret" not in server.log()
    assert "secret" not in json.dumps(server.json("/stats"))
    with connect(server.ws) as client:
        client.recv(PATIENCE_SECONDS)
        client.send('{"type":"subscribe","data":{"channels":["token.BTC","global"]}}')
        assert json.loads(client.recv(PATIENCE_SECONDS))["type"] == "subscription_ack"
        publish(nats.url, [("global", b'{"only":1}')])
        first = json.loads(client.recv(PATIENCE_SECONDS))
        assert (first["channel"], first["seq"], first["prev"]) == ("global", 1, 0)
        assert first["data"] == {"only": 1}


def test_the_demo_feed_can_go_to_another_nats(nats: NatsServer, serve: Serve) -> None:
    """WS_DEMO_FEED=1 with NATS_URL: a companion without nats-server, and messages come."""
    server = serve(NATS_URL=nats.url, WS_DEMO_FEED="1")
    assert names(server) == ["python"] * 4
    with Swarm(server.port) as swarm:
        swarm.connect(0)
        swarm.subscribe(0, ["token.BTC"])
        wait_for(lambda: swarm.messages() >= 2, 5, "the demo feed")


def test_the_demo_feed_can_be_left_off(serve: Serve) -> None:
    """WS_DEMO_FEED=0: an embedded nats-server, and nobody publishes."""
    server = serve(WS_DEMO_FEED="0")
    assert names(server) == ["nats", "python", "python", "python", "python"]
    with Swarm(server.port) as swarm:
        swarm.connect(0)
        swarm.subscribe(0, ["token.BTC"])
        swarm.settle()
        with Publisher(server.nats_url(), ["token.BTC"], rate=50):
            wait_for(lambda: swarm.messages() >= 10, 5, "the messages")
        assert swarm.stretches()[0].first == 1


def test_a_client_of_another_make_sees_the_close_code(server: Server) -> None:
    """Code and reason of the close frame, through a client library."""
    with connect(server.ws) as client:
        client.recv(PATIENCE_SECONDS)
        server.signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(PATIENCE_SECONDS)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        assert closed.value.rcvd.reason
