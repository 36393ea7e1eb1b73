"""The versions of all that takes part."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import subprocess

import odinws
from odinws.feed.embedded import find_nats_server

_PACKAGES = ("gevent", "gunicorn", "msgspec", "nats-py", "locust", "scipy")
_ANSWER_SECONDS = 10.0


def versions() -> dict[str, str]:
    """By name; a package that is not installed is left out. Raises NatsServerNotFoundError."""
    found = {"python": platform.python_version(), "odinws": odinws.__version__}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    command = [find_nats_server(), "--version"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_SECONDS, check=False)
    found["nats-server"] = said.stdout.strip().removeprefix("nats-server: ").removeprefix("v")
    return found
