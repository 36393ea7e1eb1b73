"""Install the wheel where nothing else is, and do the main jobs there.

`python -m tests.packaging.check build/dist`: two new environments in a new directory, one with all that
a server and an experiment need, one with the client library alone. What is installed beside the wheel is
pinned, as everywhere. Exit status: 0 if all holds; 1 if not, with the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.image.check import normal, read_pins

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 30.0
STEP_SECONDS = 60.0
INSTALL_SECONDS = 600.0
_NO_SETTINGS: Mapping[str, str] = {}
CLIENT_PACKAGES = {"click", "odinws", "websockets"}

# What a user writes who has the client library alone.
LISTEN = """
import sys
from odinws.client import Client, Message
with Client(sys.argv[1], [sys.argv[2]]) as client:
    print("listening", flush=True)
    messages = (event for event in client if isinstance(event, Message))
    for _, message in zip(range(int(sys.argv[3])), messages):
        print(message.channel, message.seq, flush=True)
"""
PLAN = """
name = "five-seconds"
question = "Does an installed odinws experiment?"
mode = "together"
rounds = 1
warmup_seconds = 1.0
measure_seconds = 5.0
[load]
connections = 20
ramp = 100.0
[[arm]]
name = "sync-dict"
baseline = true
settings = { WS_WORKERS = "1" }
[[arm]]
name = "hybrid"
settings = { WS_WORKERS = "1", WS_SHARD_STRATEGY = "hybrid" }
"""


class CheckError(Exception):
    """Something that the wheel promises does not hold."""


class Environment:
    """A virtual environment with the wheel, used from an empty directory.

    Args:
        directory: of the environment and its `work` directory; made.
        wheel: what is installed, with `extras`.
        constraints: a file of pins.
    """

    def __init__(self, directory: Path, wheel: Path, extras: str, constraints: Path) -> None:
        self.work = directory / "work"
        self.work.mkdir(parents=True)
        self._bin = directory / "venv/bin"
        venv.create(directory / "venv", with_pip=True)
        self._fresh = self._installed()  # pip, before Python 3.12 setuptools too
        words = (
            "install",
            "--quiet",
            "--no-compile",
            "--disable-pip-version-check",
            "--constraint",
            str(constraints),
        )
        self.run("python", "-m", "pip", *words, f"{wheel}[{extras}]", seconds=INSTALL_SECONDS)

    def command(self, program: str, *arguments: str) -> list[str]:
        """The argument list of a program of this environment."""
        return [str(self._bin / program), *arguments]

    def environ(self, settings: Mapping[str, str]) -> dict[str, str]:
        """The variables of a process: nothing of this one's that Python or odinws would look at."""
        ours = ("PYTHON", "WS_", "NATS_", "JS_", "LOG_", "VIRTUAL_ENV")
        kept = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
        return {**kept, "PATH": f"{self._bin}{os.pathsep}{kept['PATH']}", **settings}

    def run(
        self,
        program: str,
        *arguments: str,
        settings: Mapping[str, str] = _NO_SETTINGS,
        status: int = 0,
        seconds: float = STEP_SECONDS,
    ) -> str:
        """Run to the end; what it wrote, standard error last.

        Raises:
            CheckError: it ended with another status.
        """
        done = subprocess.run(
            self.command(program, *arguments),
            cwd=self.work,
            env=self.environ(settings),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        output = done.stdout + done.stderr
        if done.returncode != status:
            raise CheckError(
                f"{program} {' '.join(arguments)} ended with {done.returncode}: {output[-4000:]}"
            )
        return output

    @contextlib.contextmanager
    def running(
        self, program: str, *arguments: str, settings: Mapping[str, str] = _NO_SETTINGS
    ) -> Iterator[subprocess.Popen[str]]:
        """Let it run, and end it by SIGTERM."""
        process = subprocess.Popen(
            self.command(program, *arguments),
            cwd=self.work,
            env=self.environ(settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.communicate(timeout=STEP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()

    def packages(self) -> set[str]:
        """The names of what the wheel brought, itself included."""
        return self._installed() - self._fresh

    def _installed(self) -> set[str]:
        listed = json.loads(
            self.run("python", "-m", "pip", "list", "--format", "json", "--disable-pip-version-check")
        )
        return {normal(package["name"]) for package in listed}


def main() -> int:
    """Run the check; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dist", type=Path, help="directory with one wheel and one sdist")
    dist: Path = parser.parse_args().dist
    begun = time.monotonic()
    try:
        [wheel], [sdist] = dist.resolve().glob("*.whl"), dist.resolve().glob("*.tar.gz")
        with tempfile.TemporaryDirectory(prefix="odinws-wheel-") as scratch:
            check(wheel, sdist, Path(scratch))
    except (CheckError, ValueError, subprocess.TimeoutExpired) as error:
        say(f"wheel check: FAILED after {time.monotonic() - begun:.0f} s: {error}")
        return 1
    say(f"wheel check: all holds, {time.monotonic() - begun:.0f} s")
    return 0


def check(wheel: Path, sdist: Path, scratch: Path) -> None:
    """Install twice, and look."""
    pins = read_pins(REPOSITORY / "requirements.txt")
    constraints = scratch / "constraints.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in pins.items()))
    say(f"installing {wheel.name}[client]")
    client = Environment(scratch / "client", wheel, "client", constraints)
    check_client(client)
    check_sdist(client, wheel, sdist)
    say(f"installing {wheel.name}[experiment]")
    server = Environment(scratch / "server", wheel, "experiment", constraints)
    check_server(server, client)
    check_experiment(server)


def check_client(client: Environment) -> None:
    """Nothing of a server came along, and what needs one says so."""
    packages = client.packages()
    expect(packages == CLIENT_PACKAGES, f"the client is {', '.join(sorted(packages))}")
    version = client.run("odinws", "--version").strip()
    expect("serve" in client.run("odinws", "--help"), f"{version}: the command line answers")
    advice = "odinws: gunicorn is not installed: pip install 'odinws[server]'\n"
    expect(client.run("odinws", "serve", status=1) == advice, "odinws serve says what to install")
    said = client.run("odinws", "check", status=1)
    expect(said.count("\n") == 1 and "pip install 'odinws[server]'" in said, "and so does odinws check")


def check_sdist(client: Environment, wheel: Path, sdist: Path) -> None:
    """A wheel that is made of the sdist has the same files."""
    words = ("wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "--wheel-dir", "made")
    client.run("python", "-m", "pip", *words, str(sdist), seconds=INSTALL_SECONDS)
    with zipfile.ZipFile(client.work / "made" / wheel.name) as made, zipfile.ZipFile(wheel) as built:
        names = set(built.namelist())
        expect(set(made.namelist()) == names, f"the sdist makes the same wheel, {len(names)} files")
    expect({"odinws/py.typed", "strategies/py.typed"} <= names, "it brings its types")


def check_server(server: Environment, client: Environment) -> None:
    """Serve with its own NATS, with a file of flags and a key, and be heard by the client library."""
    (server.work / "secret").write_text("not a secret, but 32 bytes long.")
    flags = (
        server.run("python", "-c", "import odinws; print(odinws.__path__[0])").strip() + "/conf/flags.json"
    )
    settings = {
        "WS_ADDR": "127.0.0.1:0",
        "WS_ADMIN_ADDR": "127.0.0.1:0",
        "WS_WORKERS": "2",
        "WS_FLAGS_FILE": flags,
        "WS_JWT_SECRET_FILE": "secret",
        "WS_ALLOW_ANONYMOUS": "true",
        "LOG_FORMAT": "json",
    }
    checked = server.run("odinws", "check", settings=settings)
    expect("problem" not in checked, f"odinws check finds nothing: {checked.count(chr(10))} lines")
    server.run("gunicorn", "-c", "python:odinws.gunicorn_conf", "--check-config", settings=settings)
    with server.running("odinws", "serve", "--graceful-timeout", "5", settings=settings) as process:
        up = read_up(process)
        say(f"ok   odinws serve: {up['page']}, {up['strategy']}")
        for path in ("", "client.js"):
            with urllib.request.urlopen(up["page"] + path, timeout=STEP_SECONDS) as answer:  # noqa: S310
                expect(answer.status == 200 and answer.read() != b"", f"it serves /{path}")
        url: str = up["websocket"]
        lines = client.run("python", "-c", LISTEN, url, "token.BTC", "3").splitlines()
        expect([line.split()[0] for line in lines[1:]] == ["token.BTC"] * 3, "the client hears the demo feed")
        with client.running("python", "-c", LISTEN, url, "token.NEW", "2") as listener:
            assert listener.stdout is not None
            listener.stdout.readline()
            nats_url = Path(up["nats_url_file"]).read_text().strip()
            words = ("--nats-url", nats_url, "--tokens", "NEW", "--rate", "20", "--duration", "3")
            said = server.run("odinws", "publish", *words)
            expect(said.splitlines()[-1].startswith("published "), said.splitlines()[-1])
            heard = [listener.stdout.readline().split()[0] for _ in range(2)]
            expect(heard == ["token.NEW"] * 2, "the client hears what odinws publish sends")


def check_experiment(server: Environment) -> None:
    """Five seconds of measurement, to the report."""
    (server.work / "plan.toml").write_text(PLAN)
    server.run("odinws", "experiment", "run", "plan.toml", "--out", "out")
    expect((server.work / "out/report.html").is_file(), "an experiment ends with its report")


def read_up(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The facts of the line with which a server says that it is up; returns when its workers accept.

    Raises:
        CheckError: it ends, or takes too long.
    """
    assert process.stdout is not None
    facts: dict[str, Any] = {}
    lines: list[str] = []
    deadline = time.monotonic() + START_SECONDS
    for line in process.stdout:
        lines.append(line)
        fields = json.loads(line) if line.startswith("{") else {}
        if fields.get("message") == "odinws is up":
            facts = fields
        if fields.get("message") == "all workers accept":
            return facts
        if time.monotonic() > deadline:
            break
    raise CheckError(f"odinws serve does not come up: {''.join(lines[-20:])}")


def expect(holds: bool, what: str) -> None:
    """Say what holds.

    Raises:
        CheckError: it does not.
    """
    if not holds:
        raise CheckError(f"not true: {what}")
    say(f"ok   {what}")


def say(line: str) -> None:
    """Print a line now."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
