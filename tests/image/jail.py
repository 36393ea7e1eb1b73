"""Run an image in name spaces of its own: it is process 1, alone, on a loopback that nobody else sees.

`inside` does the mounting. A container engine would do as much, but those of Debian need a capability and a
layout of cgroups that a machine for CI often lacks.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.image.build import Image

_INSIDE = Path(__file__).with_name("inside.py")
_START_SECONDS = 10.0
COMMAND_SECONDS = 15.0
_POLL_SECONDS = 0.2
_TCP_LISTEN = "0A"
_FIELD = re.compile(r"^(\w+):\s+(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Process:
    """A process of a jail: its number outside, its state letter, its user and its command line."""

    pid: int
    state: str
    uid: int
    command: str


class Jail:
    """An image that runs. Leaving the context kills what still does."""

    def __init__(self, image: Image, log: Path, env: dict[str, str] | None = None) -> None:
        """Start it.

        Args:
            image: what to run.
            log: a file for its output.
            env: variables to set besides the image's.

        Raises:
            RuntimeError: it did not come as far as the image's command.
        """
        self.image = image
        self.env = image.env | (env or {})
        self._log = log
        reader, writer = os.pipe()
        order = {
            "root": str(image.root),
            "workdir": image.workdir,
            "user": image.user,
            "env": self.env,
            "command": image.command,
            "pid_fd": writer,
        }
        with log.open("wb") as output:
            self._unshare = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL", "unshare", "--fork"),
                    *("--mount", "--pid", "--net", "--ipc", "--uts"),
                    *(sys.executable, "-I", str(_INSIDE), json.dumps(order)),
                ],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, pass_fds=[writer],
                start_new_session=True,
            )  # fmt: skip
        os.close(writer)
        with os.fdopen(reader) as told:
            self.pid = int(told.readline() or 0)
        deadline = time.monotonic() + _START_SECONDS
        while self._entering() and time.monotonic() < deadline:
            time.sleep(0.01)
        if not self.running() or self._entering():
            self.kill()
            raise RuntimeError(f"the image's command did not start\n{self.output()}")

    def _entering(self) -> bool:
        """Whether process 1 is still `inside`, on its way to the image's command."""
        return self.running() and str(_INSIDE) in _command_line(self.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def running(self) -> bool:
        """Whether process 1 lives."""
        return self._unshare.poll() is None

    def output(self) -> str:
        """The end of what it has written."""
        return self._log.read_text(errors="replace")[-6000:]

    def kill(self) -> None:
        """Kill process 1; the kernel kills all others with it."""
        if self.running():
            os.kill(self.pid or self._unshare.pid, signal.SIGKILL)
        self._unshare.wait()

    def stop(self, limit_seconds: float) -> tuple[int, float]:
        """Send the image's stop signal; its exit status (128 + n for signal n) and the seconds it took.

        Raises:
            subprocess.TimeoutExpired: it still runs after `limit_seconds`.
        """
        begun = time.monotonic()
        os.kill(self.pid, signal.Signals[self.image.stop_signal])
        status = self._unshare.wait(limit_seconds)
        return (status if status >= 0 else 128 - status), time.monotonic() - begun

    def command(self, argv: Sequence[str]) -> list[str]:
        """What to start outside so that `argv` runs inside, as the image's user and in its directory."""
        uid, gid = self.image.user.split(":")
        enter = [
            *(shutil.which("nsenter") or "nsenter", "--target", str(self.pid), "--mount", "--pid", "--net"),
            *("--ipc", "--uts", "--root", f"--wd=/proc/{self.pid}/cwd", "--setgid", gid, "--setuid", uid),
        ]
        return [*enter, "--", *argv]

    def run(
        self, argv: Sequence[str], env: dict[str, str] | None = None, source: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run `argv` inside to its end.

        Args:
            argv: the command.
            env: variables to set besides the image's.
            source: its standard input.

        Raises:
            subprocess.TimeoutExpired: past `COMMAND_SECONDS`; it is killed.
        """
        return subprocess.run(
            self.command(argv), env=self.env | (env or {}), input=source, text=True, check=False,
            timeout=COMMAND_SECONDS, capture_output=True,
        )  # fmt: skip

    def popen(self, argv: Sequence[str], source: IO[str] | None = None) -> subprocess.Popen[str]:
        """Start `argv` inside, its output in a pipe. It ends with the jail."""
        return subprocess.Popen(
            self.command(argv), env=self.env, text=True, stdin=source or subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def healthy(self, env: dict[str, str] | None = None) -> bool:
        """Whether the image's HEALTHCHECK succeeds now."""
        return self.run(self.image.healthcheck, env=env).returncode == 0

    def seconds_to_health(self, limit_seconds: float) -> float:
        """Wait for the HEALTHCHECK; the seconds it took.

        Raises:
            TimeoutError: not within `limit_seconds`, or the image ended.
        """
        begun = time.monotonic()
        while not self.healthy():
            if not self.running() or time.monotonic() - begun > limit_seconds:
                raise TimeoutError(f"HEALTHCHECK never succeeded\n{self.output()}")
            time.sleep(_POLL_SECONDS)
        return time.monotonic() - begun

    def processes(self) -> Iterator[Process]:
        """All that runs inside."""
        home = os.readlink(f"/proc/{self.pid}/ns/pid")
        for directory in Path("/proc").glob("[0-9]*"):
            # It may end while we look; and some of the machine's own are closed even to root.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                if os.readlink(directory / "ns/pid") == home:
                    status = dict(_FIELD.findall((directory / "status").read_text()))
                    pid = int(directory.name)
                    yield Process(pid, status["State"][0], int(status["Uid"].split()[1]), _command_line(pid))

    def listening(self, port: int) -> set[str]:
        """The IPv4 addresses on which something listens at `port`."""
        addresses = set()
        for line in Path(f"/proc/{self.pid}/net/tcp").read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            address, _, number = local.partition(":")
            if state == _TCP_LISTEN and int(number, 16) == port:
                addresses.add(".".join(str(byte) for byte in reversed(bytes.fromhex(address))))
        return addresses


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""
