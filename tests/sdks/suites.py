"""The test suites of the official clients, as far as they need no server that takes messages of clients.

They come from where their authors publish them, pinned, into a cache. Nothing of them is kept here but names.
In a copy the server's address, and the secret of tokens, are replaced by ours.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.environments import EnvironmentMissingError, made, step
from tests.programs import find
from tests.sdks import environment
from tests.server import Server

_SECRET = secrets.token_hex()
_THEIR_ADDRESS = "localhost:8000"
_CHANNELS = '[[channels]]\npattern = "*"\nsubscribe = "public"\n'
_SUITE_SECONDS = 240.0
_CLASS_SECONDS = 60.0


class Suite(ABC):
    """One of them.

    Attributes:
        tests: names of those that must pass.
        settings: of the server.
    """

    tests: Sequence[str]
    settings: Mapping[str, str]

    @abstractmethod
    def sources(self) -> Path:
        """A directory of its own with all that it needs. Raises EnvironmentMissingError."""

    @abstractmethod
    def run(self, sources: Path, port: int) -> Mapping[str, str]:
        """Run it against a server; what became of each test: "passed", or why it did not."""

    def faults(self) -> list[str]:
        """The tests that did not pass, a line each.

        Raises:
            EnvironmentMissingError: the suite can't be had.
        """
        sources = self.sources()
        with tempfile.TemporaryDirectory(prefix="odinws-suite-") as directory, _server(self) as server:
            copy = Path(directory, "suite")
            shutil.copytree(sources, copy, symlinks=True)
            found = self.run(copy, server.port)
        said = {name: found.get(name, "did not run") for name in self.tests}
        return [f"{name}: {outcome}" for name, outcome in said.items() if outcome != "passed"]


@contextmanager
def _server(suite: Suite) -> Iterator[Server]:
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as channels:
        channels.write(_CHANNELS)
        channels.flush()
        settings = {"WS_DEMO_FEED": "false", "WS_WORKERS": "1", "WS_CHANNELS_FILE": channels.name}
        with Server({**settings, **suite.settings}) as server:
            yield server


def _replace(directory: Path, pattern: str, changes: Mapping[str, str]) -> None:
    for path in directory.rglob(pattern):
        text = path.read_text()
        for before, after in changes.items():
            text = text.replace(before, after)
        path.write_text(text)


class CentrifugeJs(Suite):
    """That of centrifuge-js, whose packages have none: its repository has."""

    REPOSITORY = "https://github.com/centrifugal/centrifuge-js"
    TAG = "5.7.1"
    settings: Mapping[str, str] = {}
    tests = (
        *(
            f"websocket: {name}"
            for name in (
                "connects and disconnects",
                "subscribe and unsubscribe",
                "rpc buffered till connected",
                "handles offline/online events",
                "not connecting on online in disconnected state",
                "connect disconnect loop",
                "unsubscribe right after connect",
                "unsubscribe in between connect command and reply",
                "reconnect after close before transport open",
                "connects and subscribes with token",
                "subscribes and unsubscribes from many subs",
                "retries connection getToken error",
                "retries connection getData error",
                "retries subscription getToken error",
                "retries subscription getData error",
                "disconnected with unauthorized",
                "unsubscribed with unauthorized",
            )
        ),
        "websocket (Protobuf): connects and disconnects",
        "websocket (Protobuf): subscribe and unsubscribe",
    )
    _FILES = ("src/centrifuge.test.ts", "src/centrifuge.protobuf.test.ts")

    def sources(self) -> Path:
        """A clone with its packages."""
        git, npm = find("git", "git"), find("npm", "npm")

        def make(place: Path) -> None:
            step(git, "clone", "--quiet", "--depth", "1", "--branch", self.TAG, self.REPOSITORY, str(place))
            words = ("install", "--ignore-scripts", "--legacy-peer-deps", "--no-audit", "--no-fund")
            step(npm, *words, directory=place)

        return made(environment.CACHE / "centrifuge-js", f"{self.REPOSITORY} {self.TAG}".encode(), make)

    def run(self, sources: Path, port: int) -> Mapping[str, str]:
        """See `Suite`."""
        _replace(sources / "src", "*.test.ts", {_THEIR_ADDRESS: f"127.0.0.1:{port}"})
        report = sources / "report.json"
        words = ("npx", "jest", "--forceExit", "--json", "--outputFile", str(report), *self._FILES)
        subprocess.run(
            (*words, "-t", "websocket"), cwd=sources, capture_output=True, check=False, timeout=_SUITE_SECONDS
        )
        found: dict[str, str] = {}
        for file in json.loads(report.read_text())["testResults"]:
            for test in file["assertionResults"]:
                why = " ".join(test["failureMessages"])[:400]
                found[test["fullName"]] = "passed" if test["status"] == "passed" else why
        return found


class CentrifugePython(Suite):
    """That of centrifuge-python, which its source distribution has."""

    settings: Mapping[str, str] = {"WS_JWT_SECRET": _SECRET, "WS_JWT_REQUIRE_EXP": "0"}
    tests = (
        "TestClient",
        "TestConnectDisconnectLoop",
        "TestSubscription",
        "TestSubscribeUnsubscribeLoop",
        "TestMultipleSubscriptions",
        "TestSubscriptionManagement",
        "TestClientTokenInvalid",
        "TestClientTokenUnauthorized",
        "TestSubscriptionTokenInvalid",
        "TestSubscriptionTokenUnauthorized",
        "TestConnectedContext",
        "TestConnectingDisconnectedCallbacks",
        "TestSubscribingSubscribedCallbacks",
        "TestConnectionLeak",
        "TestGetState.test_get_state_error_retried",
        "TestGetState.test_get_state_persistent_failure_keeps_retrying",
    )

    def sources(self) -> Path:
        """The unpacked distribution."""
        pins = environment.REQUIREMENTS.read_text()
        own = re.search(r"(?m)^centrifuge-python==(?:.*\\\n)+.*\n", pins)
        assert own, "no pin of centrifuge-python"

        def make(place: Path) -> None:
            place.mkdir()
            wanted = place / "wanted.txt"
            wanted.write_text(own[0])
            words = ("download", "--quiet", "--no-deps", "--no-binary", ":all:", "--require-hashes")
            python = str(environment.python())
            step(python, "-m", "pip", *words, "--requirement", str(wanted), directory=place)
            (archive,) = place.glob("*.tar.gz")
            shutil.unpack_archive(archive, place, filter="data")

        place = made(environment.CACHE / "centrifuge-python", own[0].encode(), make)
        (unpacked,) = (path for path in place.iterdir() if path.is_dir())
        return unpacked

    def run(self, sources: Path, port: int) -> Mapping[str, str]:
        """See `Suite`; each class has a process and a time of its own, as some would wait for ever."""
        ours = {_THEIR_ADDRESS: f"127.0.0.1:{port}", 'hmac_secret = "secret"': f'hmac_secret = "{_SECRET}"'}
        _replace(sources / "tests", "*.py", ours)
        shutil.rmtree(sources / "centrifuge")  # what is tested is what is installed
        return {name: self._one(sources, name) for name in self.tests}

    def _one(self, sources: Path, name: str) -> str:
        words = (str(environment.python()), "-m", "unittest", f"tests.test_client.{name}")
        try:
            done = subprocess.run(
                words, cwd=sources, capture_output=True, text=True, check=False, timeout=_CLASS_SECONDS
            )
        except subprocess.TimeoutExpired:
            return f"not within {_CLASS_SECONDS:g} s"
        return "passed" if not done.returncode else done.stderr[-400:]


SUITES: Mapping[str, Suite] = {"centrifuge-js": CentrifugeJs(), "centrifuge-python": CentrifugePython()}


def run(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Run suites: what did not pass, and which can't be had, a line each."""
    bad: list[str] = []
    missing: list[str] = []
    for name in names:
        try:
            bad += [f"{name}: {line}" for line in SUITES[name].faults()]
        except EnvironmentMissingError as error:
            missing.append(f"{name} DID NOT RUN, its suite can't be had: {error}")
    return bad, missing
