"""A short form of `python -m tests.attack`: what it stands on, and the vectors that broke most."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Iterator

import pytest
from rich.console import Console

from tests.attack import __main__, report
from tests.attack.attacker import LOCAL
from tests.attack.judging import faults
from tests.attack.network import HELP, Network, NetworkError, entered, network
from tests.attack.run import Scenes
from tests.attack.trial import SHORT
from tests.attack.vectors import VECTORS
from tests.attack.vectors.base import Vector

QUICK = [vector for vector in VECTORS.values() if vector.quick]


@pytest.fixture(scope="module")
def place() -> Iterator[Network]:
    """The namespaces; without them, on CI a failure, elsewhere the loopback and a warning."""
    try:
        with network() as found:
            yield found
            return
    except NetworkError as error:
        if os.environ.get("CI"):
            pytest.fail(HELP.format(why=error))
    warnings.warn(report.LOOPBACK, stacklevel=1)
    yield Network()


@pytest.fixture(scope="module")
def scenes(place: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenes]:
    """Servers under attack."""
    with Scenes(place, tmp_path_factory.mktemp("scenes")) as found:
        yield found


@pytest.mark.parametrize("vector", QUICK, ids=[vector.name for vector in QUICK])
def test_the_server_takes_no_harm(scenes: Scenes, vector: Vector) -> None:
    """Memory, waiting, refusals, what is left afterwards: all within its bounds."""
    found = scenes.attack(vector, SHORT, attempts=2)
    Console(width=200).print(report.table([found]))
    assert faults(found, SHORT.late) == []
    assert found.outcome.sent > 0


def test_clients_are_strangers(place: Network) -> None:
    """A client reaches the server by an address of its own; only one of the loopback is local."""
    with entered(place.inside):
        listener = socket.create_server(("", 0))
    with listener:
        port = listener.getsockname()[1]
        for address, server in ((place.address(7), place.server), (LOCAL, LOCAL)):
            with place.at(address) as sock:
                sock.connect((server, port))
                accepted, (peer, _) = listener.accept()
                accepted.close()
                assert peer == address
    assert place.address(7).startswith("127.") == place.is_loopback
    assert len({place.address(number) for number in range(65_000)}) == 65_000


def test_without_namespaces_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It attacks nobody, and names what to do."""
    monkeypatch.setenv("PATH", "")
    assert __main__.main(["--vector", "pings"]) == 2
    said = capsys.readouterr().out
    for words in ("No such file", "as root with Debian's iproute2", "--loopback"):
        assert words in said.replace("\n", " ")


def test_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Each vector says what it sends and what should stop it."""
    assert __main__.main(["--list"]) == 0
    said = capsys.readouterr().out
    for vector in VECTORS.values():
        assert vector.name in said
        assert vector.sends
        assert vector.bound
