"""Build the Dockerfile with buildah, over a base that debootstrap makes: no image registry is asked.

Containers and images live in a store of this check's own, below the cache directory, so those of the user are
neither seen nor touched. Between runs the store holds the base alone.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUITE = "bookworm"
# All that the Dockerfile asks of its base.
INCLUDED = ("python3", "python3-venv", "ca-certificates")
BASE_TAG = f"localhost/odinws-base:{SUITE}"
IMAGE_TAG = "localhost/odinws-check:latest"

BASE_SECONDS = 900.0
BUILD_SECONDS = 180.0
STEP_SECONDS = 60.0

# What the build may need of this machine's pip to reach its index. Paths on this machine are left out,
# as nothing is there inside; the certificate is mounted, beside the file that names it.
_PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout")
_PIP_DIRECTORY = "/etc/xdg/pip"


@dataclass(frozen=True, slots=True)
class Image:
    """A built image, its files unpacked.

    Attributes:
        root: the directory that holds its file system.
        env: its environment.
        user: `uid:gid`.
        workdir: an absolute path in it.
        command: what it runs.
        healthcheck: the command of its HEALTHCHECK.
        stop_signal: a name, SIGTERM for instance.
        bytes_total: the size of its files.
        bytes_base: the size of the files of its base.
    """

    root: Path
    env: dict[str, str]
    user: str
    workdir: str
    command: list[str]
    healthcheck: list[str]
    stop_signal: str
    bytes_total: int
    bytes_base: int


class Store:
    """A buildah store below `cache`. One process at a time may use it.

    Raises:
        subprocess.CalledProcessError: any method, when buildah or debootstrap fails. It is not retried.
        subprocess.TimeoutExpired: any method, past the constants above.
    """

    def __init__(self, cache: Path) -> None:
        for driver in ("overlay", "vfs"):
            self._buildah = [
                *("buildah", "--storage-driver", driver, "--root", str(cache / driver / "storage")),
                *("--runroot", str(cache / driver / "run")),
            ]
            # The fast one doesn't work everywhere that we are root; vfs needs nothing of the kernel.
            probe = subprocess.run(
                [*self._buildah, "info"], check=False, capture_output=True, timeout=STEP_SECONDS
            )
            if probe.returncode == 0:
                break
        self.driver = driver

    def clear(self) -> None:
        """Remove all but the base, also what an interrupted run has left."""
        self._run("rm", "--all")
        if self._run("images", "--quiet", "--filter", f"reference={IMAGE_TAG}"):
            self._run("rmi", "--force", IMAGE_TAG)
        self._run("rmi", "--prune")

    def has_base(self) -> bool:
        """Whether the base is there from an earlier run."""
        return bool(self._run("images", "--quiet", "--filter", f"reference={BASE_TAG}"))

    def make_base(self) -> None:
        """Make the base with debootstrap, straight into a container, and keep it under `BASE_TAG`."""
        container = self._run("from", "scratch")
        root = self._run("mount", container)
        _output(
            ["debootstrap", "--variant=minbase", f"--include={','.join(INCLUDED)}", SUITE, root],
            BASE_SECONDS,
        )
        shutil.rmtree(Path(root, "var/cache/apt/archives"), ignore_errors=True)
        self._run("commit", "--rm", "--format", "docker", container, BASE_TAG, seconds=BASE_SECONDS)

    def build(self, context: Path, scratch: Path) -> Image:
        """Build the Dockerfile of `context`, and unpack the image.

        Raises:
            RuntimeError: it has no HEALTHCHECK in exec form.

        Args:
            context: the directory with the Dockerfile.
            scratch: an empty directory, mounted during the build.
        """
        self._run(
            # Docker's format: that of OCI has no HEALTHCHECK.
            *("bud", "--isolation", "chroot", "--format", "docker", "--pull-never", "--layers=false"),
            *("--build-arg", f"BASE={BASE_TAG}", *_pip_mount(scratch), "--tag", IMAGE_TAG, str(context)),
            seconds=BUILD_SECONDS,
            show=True,
        )
        config = self._config(IMAGE_TAG)
        return Image(
            root=(root := self._unpack(IMAGE_TAG)),
            env=dict(line.split("=", 1) for line in config["Env"]),
            user=config["User"],
            workdir=config["WorkingDir"],
            command=config["Cmd"] or [""],
            healthcheck=_command(config.get("Healthcheck", {}).get("Test", [])),
            stop_signal=config.get("StopSignal", "SIGTERM"),
            bytes_total=_bytes_below(root),
            bytes_base=_bytes_below(self._unpack(BASE_TAG)),
        )

    def _config(self, tag: str) -> dict[str, Any]:
        config: dict[str, Any] = json.loads(self._run("inspect", "--type", "image", tag))["Docker"]["config"]
        return config

    def _unpack(self, tag: str) -> Path:
        return Path(self._run("mount", self._run("from", "--pull-never", tag)))

    def _run(self, *arguments: str, seconds: float = STEP_SECONDS, show: bool = False) -> str:
        return _output([*self._buildah, *arguments], seconds, show=show)


def _output(command: list[str], seconds: float, *, show: bool = False) -> str:
    """Run it to its end; its output, or nothing if it is shown. On failure its end is shown always."""
    with subprocess.Popen(
        command, text=True, stdin=subprocess.DEVNULL, stdout=None if show else subprocess.PIPE,
        stderr=subprocess.STDOUT if show else subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            output, errors = process.communicate(timeout=seconds)
        except BaseException:
            # With all that it has started: pip goes on without buildah.
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        sys.stderr.write(f"{(output or '')[-4000:]}{errors or ''}\n")
        raise subprocess.CalledProcessError(process.returncode, command)
    return (output or "").strip()


def _command(test: list[str]) -> list[str]:
    """The command of a HEALTHCHECK, which must be in exec form."""
    if test[:1] != ["CMD"]:
        raise RuntimeError(f"the image has no HEALTHCHECK in exec form: {test}")
    return test[1:]


def _bytes_below(root: Path) -> int:
    """Bytes of the regular files below `root`, each once."""
    sizes: dict[int, int] = {}
    for directory, _, names in os.walk(root):
        for name in names:
            status = os.lstat(os.path.join(directory, name))
            sizes[status.st_ino] = status.st_size
    return sum(sizes.values())


def _pip_setting(name: str) -> str:
    """A setting of this machine's pip, from the environment or its files; empty if there is none."""
    if value := os.environ.get(f"PIP_{name.upper().replace('-', '_')}"):
        return value
    run = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", f"global.{name}"],
        check=False, timeout=STEP_SECONDS, text=True, capture_output=True,
    )  # fmt: skip
    return run.stdout.strip() if run.returncode == 0 else ""


def _pip_mount(scratch: Path) -> list[str]:
    """Options of buildah that give the build's pip the way of this machine's pip to its index."""
    lines = ["[global]", "progress-bar = off"]
    for name in _PIP_SETTINGS:
        words = [word for word in _pip_setting(name).split() if not word.startswith(("/", "file:"))]
        if words:
            lines.append(f"{name} = {' '.join(words)}")
    certificates = [_pip_setting("cert"), os.environ.get("SSL_CERT_FILE", "")]
    if certificate := next((path for path in certificates if path and Path(path).is_file()), None):
        shutil.copy(certificate, scratch / "cert.pem")
        lines.append(f"cert = {_PIP_DIRECTORY}/cert.pem")
    (scratch / "pip.conf").write_text("\n".join(lines) + "\n")
    return ["--volume", f"{scratch}:{_PIP_DIRECTORY}:ro"]
