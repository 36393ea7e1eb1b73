"""No descriptors left: clients are served, new ones wait, and the worker does not spin."""

from __future__ import annotations

import shlex
import time

import psutil

from tests.integration.conftest import Serve
from tests.nats import NatsServer
from tests.server import GUNICORN, Server, wait_for
from tests.stress.leaks import assert_no_leaks, wait_for_connections, warm_up
from tests.stress.scenario import CALM, CHANNELS, Listeners
from tests.swarm import Swarm

DESCRIPTORS = 110  # of each process
LISTENERS = 40
GUESTS = 200  # more than there is room for
WORKERS = 2
LOOK_SECONDS = 2.0
MOST_CORES = 0.5  # of a worker that carries a feed to its share of the clients
MOST_TRACEBACKS = 60  # one a second of each worker, and some when it begins


def workers(server: Server) -> list[psutil.Process]:
    """The workers, without asking them."""
    return [process for process in server.processes() if process.pid != server.pid]


def cpu_seconds(process: psutil.Process) -> float:
    """Used so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def test_a_server_without_descriptors_serves_on(nats: NatsServer, serve: Serve) -> None:
    """No connected client is closed or misses a message; waiting ones get in when others leave."""
    command = ["sh", "-c", f"ulimit -n {DESCRIPTORS}; exec {shlex.join(GUNICORN)}"]
    server = serve(command=command, NATS_URL=nats.url, WS_MAX_CONNECTIONS="1000", **CALM)
    before = warm_up(server, nats.url, clients=100)
    with Listeners(server, nats.url, LISTENERS) as listeners, Swarm(server.port) as guests:
        running = {process.pid for process in workers(server)}
        guests.connect(range(GUESTS))
        guests.subscribe(range(GUESTS), CHANNELS[:1])
        wait_for(
            lambda: sum(worker.num_fds() for worker in workers(server)) >= WORKERS * (DESCRIPTORS - 1),
            10,
            "that no descriptor is left",
        )
        began = time.monotonic()
        used = {worker.pid: cpu_seconds(worker) for worker in workers(server)}
        heard = listeners.swarm.messages()
        time.sleep(LOOK_SECONDS)
        inside = [life.index for life in guests.open()]
        assert {worker.pid for worker in workers(server)} == running, "no worker gave up"
        for worker in workers(server):
            cores = (cpu_seconds(worker) - used[worker.pid]) / (time.monotonic() - began)
            assert cores < MOST_CORES, "a busy loop"
        assert listeners.swarm.messages() > heard
        assert len(listeners.swarm.open()) == LISTENERS
        assert WORKERS * DESCRIPTORS / 2 < LISTENERS + len(inside) < WORKERS * DESCRIPTORS

        guests.disconnect(inside)
        guests.settle()
        assert len(guests.open()) == GUESTS - len(inside), "all who had to wait are in"
        assert all(life.client_id for life in guests.lives)
        wait_for_connections(server, LISTENERS + GUESTS - len(inside))
        assert {worker.pid for worker in workers(server)} == running
        guests.disconnect(range(GUESTS))
        guests.settle()
        assert guests.problems() == []
        listeners.assert_complete()
    assert_no_leaks(server, before, expected_errors=["Traceback"])
    assert server.log().count("Traceback") < MOST_TRACEBACKS
    assert server.log().count("Traceback") == server.log().count("Too many open files")
