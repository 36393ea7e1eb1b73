"""Build the image as a user would, run it as an engine would, and look: `python3 -m tests.image.check`.

Needs root, a Debian with buildah, debootstrap and iproute2 (`--install` fetches them), its package mirror and
its Python index. The first run makes the base and takes two or three minutes, later ones less than one. Exit
status: 0 if all holds; 1 if not, with the reason; 2 if this machine can't tell.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from tests.image.build import BASE_TAG, Image, Store
from tests.image.jail import Jail

REPOSITORY = Path(__file__).resolve().parents[2]
PROBE = Path(__file__).with_name("probe.py")
NEEDED = {"buildah": "buildah", "debootstrap": "debootstrap", "ip": "iproute2", "unshare": "util-linux"}
# Names that have no business in a runtime image; `tests/test_dockerfile.py` keeps them out of the pins.
NOT_RUNTIME = re.compile(
    r"pytest|locust|hypothesis|mypy|types-|pylint|ruff|coverage|hadolint|websockets|autobahn|playwright|selenium"
    r"|(pip|setuptools|wheel)$"
)

PORT = 3004
BROKER_PORT = 4333
READY_SECONDS = 60.0
STOP_SECONDS = 5.0
LOCK_SECONDS = 300.0
INSTALL_SECONDS = 600.0
GOING_AWAY, RESTART = 1001, 1012
_ORPHAN = "sleep 0.3"


class CheckError(Exception):
    """Something that the image promises does not hold."""


def main() -> int:
    """Run the check; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--context", type=Path, default=REPOSITORY, help="directory with the Dockerfile")
    parser.add_argument("--fresh", action="store_true", help="make the base anew")
    parser.add_argument("--install", action="store_true", help="apt-get what is missing on this machine")
    chosen = parser.parse_args()
    if reason := _unable(may_install=chosen.install):
        say(f"image check: CANNOT RUN: {reason}")
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    begun = time.monotonic()
    try:
        with _store() as store, tempfile.TemporaryDirectory(prefix="odinws-image-") as scratch:
            image = build(store, chosen.context, Path(scratch), fresh=chosen.fresh)
            check_files(image, chosen.context, Path(scratch))
            check_life(image, Path(scratch))
            check_broker(image, Path(scratch))
    except (CheckError, TimeoutError, RuntimeError, subprocess.SubprocessError) as error:
        say(f"image check: FAILED after {time.monotonic() - begun:.0f} s: {error}")
        return 1
    say(f"image check: all holds, {time.monotonic() - begun:.0f} s")
    return 0


def build(store: Store, context: Path, scratch: Path, *, fresh: bool) -> Image:
    """Make the base unless it is there, and the image."""
    if fresh or not store.has_base():
        say(f"making the base {BASE_TAG} with debootstrap (about a minute, kept for the next time)")
        store.make_base()
    say(f"building {context / 'Dockerfile'} with buildah")
    mounted = scratch / "build"
    mounted.mkdir()
    image = store.build(context, mounted)
    own = image.bytes_total - image.bytes_base
    say(f"image: {image.bytes_total / 1e6:.0f} MB, of which {own / 1e6:.0f} MB are above the base")
    numeric = re.fullmatch(r"[1-9]\d*:[1-9]\d*", image.user)
    expect(numeric is not None, f"user {image.user}: a number, and not root")
    expect(image.env.get("WS_ADDR") == f"0.0.0.0:{PORT}", "WS_ADDR is all interfaces")
    expect("NATS_URL" not in image.env, "NATS_URL is left to the user")
    expect(image.stop_signal == "SIGTERM", "the stop signal is SIGTERM")
    expect(not image.command[0].endswith("sh"), f"process 1 is {image.command[0]}, not a shell")
    return image


def check_files(image: Image, context: Path, scratch: Path) -> None:
    """What lies in the image: the pinned packages, no tools, nothing that its user can overwrite."""
    for leftover in ("pip", "build"):
        expect(not (image.root / leftover).exists(), f"no /{leftover} came along from the build stage")
    idle = dataclasses.replace(image, command=["sleep", "60"])
    with Jail(idle, scratch / "idle.log") as jail:
        expect(not jail.healthy(), "HEALTHCHECK fails where no server runs")
        found = ask(jail, "contents")
    packages: dict[str, str] = found["packages"]
    say(f"python {found['python']}: {', '.join(f'{n} {v}' for n, v in sorted(packages.items()))}")
    say(f"program: {', '.join(found['program'])}")
    tools = [name for name in packages if NOT_RUNTIME.match(name.lower())]
    expect(not tools, f"no test tool or installer among the packages {tools or ''}")
    expect(not found["build_tools"], f"no compiler or downloader {found['build_tools'] or ''}")
    expect(not found["writable"], f"the user owns no file of the program {found['writable'][:5] or ''}")
    expect(not found["unreadable"], f"the user can read all of the program {found['unreadable'][:5] or ''}")
    expect(found["uid"] != 0 and not found["groups"], f"runs as user {found['uid']} without other groups")
    installed = {normal(name): version for name, version in packages.items()}
    pins = read_pins(context / "conf/requirements-runtime.txt")
    wrong = {name: version for name, version in pins.items() if installed.get(name) != version}
    expect(not wrong, f"all {len(pins)} pins are installed as pinned {wrong or ''}")


def check_life(image: Image, scratch: Path) -> None:
    """Start, serve, stop, with the embedded broker and a client that is connected to the end."""
    say(f"running {' '.join(image.command)} as process 1, its root read-only")
    with Jail(image, scratch / "life.log") as jail, failing_with_log(jail):
        say(f"HEALTHCHECK succeeds after {jail.seconds_to_health(READY_SECONDS):.1f} s")
        expect(not jail.healthy({"WS_ADDR": "0.0.0.0:1"}), "HEALTHCHECK asks the port of WS_ADDR")
        expect(jail.listening(PORT) == {"0.0.0.0"}, f"listens at {jail.listening(PORT)} port {PORT}")
        running = list(jail.processes())
        expect(all(each.uid != 0 for each in running), f"none of its {len(running)} processes is root's")
        expect(any("nats-server" in each.command for each in running), "the embedded nats-server runs")
        jail.run(["sh", "-c", f"exec {_ORPHAN} <&- >&- 2>&- &"])
        deadline = time.monotonic() + STOP_SECONDS
        while orphans := [each for each in jail.processes() if each.state == "Z" or each.command == _ORPHAN]:
            expect(time.monotonic() < deadline, f"process 1 reaps {orphans}", quiet=True)
            time.sleep(0.1)
        say("ok   process 1 reaps an orphan")
        with PROBE.open() as source, jail.popen(["python3", "-I", "-", "client"], source) as client:
            kinds = [next_answer(client)["kind"] for _ in range(3)]
            expect(kinds[0] == "welcome", f"a client is welcomed, then gets {', '.join(kinds[1:])}")
            expect("data" in kinds, "the feed reaches it")
            status, seconds = stop(jail)
            closed = next_answer(client)["closed"]
            expect(closed in {GOING_AWAY, RESTART}, f"the client's close code is {closed}")
        expect(status == 0, f"{image.stop_signal} ends it in {seconds:.1f} s with status {status}")


def check_broker(image: Image, scratch: Path) -> None:
    """With NATS_URL it starts no broker of its own, and is ready only when that one is there."""
    url = f"nats://127.0.0.1:{BROKER_PORT}"
    say(f"running it with NATS_URL={url}")
    with Jail(image, scratch / "broker.log", {"NATS_URL": url}) as jail, failing_with_log(jail):
        deadline = time.monotonic() + READY_SECONDS
        while not jail.listening(PORT):
            expect(jail.running() and time.monotonic() < deadline, "it listens", quiet=True)
            time.sleep(0.1)
        expect(not jail.healthy(), "HEALTHCHECK fails while there is no broker")
        own = [each for each in jail.processes() if "nats-server" in each.command]
        expect(not own, "it starts none of its own")
        store = "/tmp/broker"  # noqa: S108 - the jail's own, empty and new
        broker = ("nats-server", "-a", "127.0.0.1", "-p", str(BROKER_PORT), "-js", "-sd", store)
        with jail.popen(broker) as process:
            waited = jail.seconds_to_health(READY_SECONDS)
            say(f"HEALTHCHECK succeeds {waited:.1f} s after the broker is started")
            status, seconds = stop(jail)
            process.wait(STOP_SECONDS)  # Process 1 is gone, so it was killed.
        expect(status == 0, f"{image.stop_signal} ends it in {seconds:.1f} s with status {status}")


def stop(jail: Jail) -> tuple[int, float]:
    """Stop it: exit status and seconds."""
    try:
        return jail.stop(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        raise CheckError(f"{jail.image.stop_signal} does not end it in {STOP_SECONDS:g} s") from None


def ask(jail: Jail, question: str) -> dict[str, Any]:
    """Ask the probe inside."""
    run = jail.run(["python3", "-I", "-", question], source=PROBE.read_text())
    expect(run.returncode == 0, f"the probe answers {run.stderr[-2000:]}", quiet=True)
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


def next_answer(client: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line of a client, which ends by itself in the end."""
    assert client.stdout is not None
    line = client.stdout.readline()
    if not line.startswith("{"):
        raise CheckError(f"the client failed: {line}{client.stdout.read()}")
    answer: dict[str, Any] = json.loads(line)
    return answer


def read_pins(path: Path) -> dict[str, str]:
    """Name to version of a file of requirements: `name[extra]==version`, hashes and comments."""
    lines = (line.partition("#")[0].partition(";")[0].strip(" \\") for line in path.read_text().splitlines())
    pins = (line.partition("==") for line in lines if line and not line.startswith("--hash="))
    return {normal(name.partition("[")[0]): version for name, _, version in pins}


def expect(holds: bool, what: str, *, quiet: bool = False) -> None:
    """Say what holds.

    Raises:
        CheckError: it does not.
    """
    if not holds:
        raise CheckError(f"not true: {what}")
    if not quiet:
        say(f"ok   {what}")


def say(line: str) -> None:
    """Print a line now."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@contextlib.contextmanager
def failing_with_log(jail: Jail) -> Iterator[None]:
    """Show what the server wrote if a check fails."""
    try:
        yield
    except CheckError:
        say(f"--- the server's output\n{jail.output()}\n---")
        raise


@contextlib.contextmanager
def _store() -> Iterator[Store]:
    """The store, ours alone, and left with nothing but the base."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "odinws", "image")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise CheckError(f"another check holds {cache}") from None
                time.sleep(0.5)
        store = Store(cache)
        store.clear()
        try:
            yield store
        finally:
            store.clear()


def _unable(*, may_install: bool) -> str:
    """Why the check can't run here; empty if it can."""
    if os.geteuid() != 0:
        return "it needs root (for chroot, mounts and name spaces): run it with sudo"
    missing = sorted(package for command, package in NEEDED.items() if not shutil.which(command))
    if missing and may_install:
        say(f"installing {' '.join(missing)}")
        apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq"]
        apt += ["-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"]
        subprocess.run([*apt, "update"], check=True, timeout=INSTALL_SECONDS)
        install = ["install", "--yes", "--no-install-recommends"]
        subprocess.run([*apt, *install, *missing], check=True, timeout=INSTALL_SECONDS)
        missing = sorted(package for command, package in NEEDED.items() if not shutil.which(command))
    return f"missing: apt-get install {' '.join(missing)}" if missing else ""


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    sys.exit("image check: interrupted")


def normal(name: str) -> str:
    """A package's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


if __name__ == "__main__":
    sys.exit(main())
