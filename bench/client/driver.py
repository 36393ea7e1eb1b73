"""Starts the measuring client in as many processes as its connections need."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench.build import BENCH, compile_c, has_zlib
from bench.client.process import ClientProcess, Event
from bench.client.totals import add_up
from bench.client.wire import Load, Wire

SPARE_FILES = 100
"""Descriptors of a process that are not connections."""
_RATES = ("rate", "join_rate", "churn_per_second")  # of all processes together


def open_files_limit() -> int:
    """Descriptors that one process may have: the hard limit, to which servers and clients raise theirs."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]


def raise_open_files_limit() -> None:
    """Let this process, and what it starts from now on, have as many descriptors as the hard limit says."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files_limit(), open_files_limit()))


def share_out(whole: int, parts: int) -> list[int]:
    """Parts of a whole, as even as can be."""
    return [whole // parts + (index < whole % parts) for index in range(parts)]


def build() -> Path:
    """Compile the client; without zlib when that is not there. Raises MissingError."""
    if has_zlib():
        return compile_c(BENCH / "client", "client", ("-lz",))
    return compile_c(BENCH / "client", "client-without-zlib", ("-DWITHOUT_ZLIB",))


def _option(name: str, value: object) -> tuple[str, str]:
    return "--" + name.replace("_", "-"), str(int(value) if isinstance(value, bool) else value)


class Clients:
    """All client processes of one trial. Use as a context manager: leaving it ends them."""

    def __init__(self, port: int, wire: Wire, load: Load, directory: Path) -> None:
        names = directory / "channels.txt"
        names.write_text("".join(f"{name}\n" for name in load.channels))
        self._finals = directory / "finals.txt"
        program = str(build())
        common = {
            **asdict(wire),
            **asdict(load),
            "port": port,
            "names": names,
            "channels": len(load.channels),
        }
        processes = -(-(load.connections + load.joins) // (open_files_limit() - SPARE_FILES))
        self._processes: list[ClientProcess] = []
        first = 0
        for share, joins in zip(
            share_out(load.connections, processes), share_out(load.joins, processes), strict=True
        ):
            options = {
                **common,
                "connections": share,
                "first_id": first,
                "joins": joins,
                "in_flight": max(1, load.in_flight // processes),
                **{name: -(-common[name] // processes) for name in _RATES},
            }
            command = [program, *(word for name, value in options.items() for word in _option(name, value))]
            self._processes.append(ClientProcess(command, directory / f"client-{first}.log").start())
            first += share + joins

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.end()

    def progress(self) -> Event:
        """The sums of what each process last said, at most a second old; empty before the first."""
        events = [process.progress for process in self._processes if process.progress]
        return add_up(events) if events else {}

    def _all(self, command: str, answer: str, timeout_seconds: float = 30.0) -> Event:
        for process in self._processes:
            process.say(command)
        return add_up([process.expect(answer, timeout_seconds) for process in self._processes])

    def wait_ready(self, timeout_seconds: float) -> Event:
        """Wait until every connection is subscribed or has failed. Raises ProcessError."""
        deadline = time.monotonic() + timeout_seconds
        return add_up(
            [process.expect("ready", max(0.1, deadline - time.monotonic())) for process in self._processes]
        )

    def begin(self) -> None:
        """Start a measured window: counts from here."""
        self._all("begin", "begin")

    def end(self) -> Event:
        """The counts since `begin`."""
        return self._all("end", "window")

    def quiet(self) -> None:
        """No more churn and joins; stalled clients read again."""
        self._all("quiet", "quiet")

    def wait_drained(self, still_seconds: float, timeout_seconds: float) -> bool:
        """Wait until nothing more arrives for a while. False: it still did at the end."""
        deadline = time.monotonic() + timeout_seconds
        changed = time.monotonic()
        before = -1
        while time.monotonic() < deadline:
            now = self.end()
            frames = now["frames"] - now["pings"]
            if frames != before:
                before, changed = frames, time.monotonic()
            elif time.monotonic() - changed >= still_seconds:
                return True
            time.sleep(0.1)
        return False

    def finish(self, counts: Sequence[int]) -> Event:
        """The verdict, given how many messages each channel had in all."""
        self._finals.write_text("".join(f"{count}\n" for count in counts))
        return self._all(f"finish {self._finals}", "final")
