"""On what an experiment runs: the machine, and the versions of all that takes part."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import psutil

from odinws.experiment.kinds import Machine
from odinws.feed.embedded import find_nats_server

_PACKAGES = ("gevent", "gunicorn", "msgspec", "nats-py", "locust", "scipy")
_ANSWER_SECONDS = 10.0


def machine() -> Machine:
    """This one."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux
    return Machine(
        cpu=_cpu_model(),
        cores=len(affinity(0)) if affinity else os.cpu_count() or 1,
        kernel=platform.release(),
        memory=int(psutil.virtual_memory().total),
    )


def versions() -> dict[str, str]:
    """By name; a package that is not installed is left out. Raises NatsServerNotFoundError."""
    import odinws

    found = {"python": platform.python_version(), "odinws": odinws.__version__}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    command = [find_nats_server(), "--version"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=False)
    found["nats-server"] = said.stdout.strip().removeprefix("nats-server: ").removeprefix("v")
    return found


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
