"""Fixtures of the stress scenarios: servers that many scenarios share, and the seed in every failure."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.access.material import SECRET
from tests.integration.conftest import nats, nats_module, serve, serve_module
from tests.nats import NatsServer
from tests.server import Server
from tests.stress.clock import Clock
from tests.stress.leaks import warm_up
from tests.stress.scenario import CALM, QUICK, SEED

__all__ = ["nats", "nats_module", "serve", "serve_module"]


class RunningServer(NamedTuple):
    """A server that many scenarios share, its NATS, and its clock."""

    server: Server
    url: str
    clock: Clock


@contextlib.contextmanager
def stand(folder: Path, *settings: Mapping[str, str]) -> Iterator[list[RunningServer]]:
    """Start and warm up a server for each of the settings, concurrently, each with its own NATS."""
    standing = []
    with contextlib.ExitStack() as stack:
        for number, each in enumerate(settings):
            clock = Clock(folder / f"clock{number}")
            nats_server = stack.enter_context(NatsServer(folder / f"nats{number}"))
            server = Server({"NATS_URL": nats_server.url, **each, **clock.settings})
            standing.append(RunningServer(server, nats_server.url, clock))
        pool = stack.enter_context(ThreadPoolExecutor())
        try:
            list(pool.map(_start, standing))
            yield standing
        finally:
            list(pool.map(lambda each: each.server.stop(), standing))


def _start(standing: RunningServer) -> None:
    standing.server.start()
    warm_up(standing.server, standing.url)


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Two workers with small bounds, warmed up."""
    with stand(tmp_path_factory.mktemp("standing"), QUICK) as [standing]:
        yield standing


@pytest.fixture(scope="session")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Two workers with long timeouts; tokens are optional, commands have a burst of 20, then 10/s."""
    settings = {
        **CALM,
        "WS_HEARTBEAT_SECONDS": "0.8",
        "WS_JWT_SECRET": SECRET,
        "WS_ALLOW_ANONYMOUS": "1",
        "WS_COMMAND_RATE": "10",
        "WS_COMMAND_BURST": "20",
    }
    with stand(tmp_path_factory.mktemp("patient"), settings) as [standing]:
        yield standing


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to each failure the command that reproduces it."""
    report = yield
    if report.failed:
        report.sections.append(("seed", f"ODINWS_STRESS_SEED={SEED} pytest {item.nodeid}"))
    return report
