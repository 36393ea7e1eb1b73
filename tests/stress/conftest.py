"""Fixtures of the stress scenarios: servers that stand through many of them; the seed in every failure."""

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
from tests.stress.rest import warm
from tests.stress.scene import CALM, QUICK, SEED

__all__ = ["nats", "nats_module", "serve", "serve_module"]


class Standing(NamedTuple):
    """A server that stands through many scenarios, its NATS, and its clock."""

    server: Server
    url: str
    clock: Clock


@contextlib.contextmanager
def stand(folder: Path, *settings: Mapping[str, str]) -> Iterator[list[Standing]]:
    """Start a server for each of the settings, all at once, each with a NATS of its own, and warm them."""
    standing = []
    with contextlib.ExitStack() as stack:
        for number, each in enumerate(settings):
            clock = Clock(folder / f"clock{number}")
            nats_server = stack.enter_context(NatsServer(folder / f"nats{number}"))
            server = Server({"NATS_URL": nats_server.url, **each, **clock.settings})
            standing.append(Standing(server, nats_server.url, clock))
        pool = stack.enter_context(ThreadPoolExecutor())
        try:
            list(pool.map(_start, standing))
            yield standing
        finally:
            list(pool.map(lambda each: each.server.stop(), standing))


def _start(standing: Standing) -> None:
    standing.server.start()
    warm(standing.server, standing.url)


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """Two workers with small bounds, grown to their usual size."""
    with stand(tmp_path_factory.mktemp("standing"), QUICK) as [standing]:
        yield standing


@pytest.fixture(scope="session")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """Two workers that give nobody up soon; tokens may be had, commands are limited to 20 and then 10/s."""
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
    """Say with each failure how to play it again."""
    report = yield
    if report.failed:
        report.sections.append(("seed", f"ODINWS_STRESS_SEED={SEED} pytest {item.nodeid}"))
    return report
