"""The paths of the admin plane besides `/debug`, and who may ask for them.

It has an address of its own (WS_ADMIN_ADDR), so that nothing on the public port depends on who asks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent
import structlog
from flask import Blueprint, Response, current_app, jsonify, request
from flask.typing import ResponseReturnValue

from odinws import logs, metrics
from odinws.access.admin import AdminRequest, Denied, Gate
from odinws.access.peer import is_forwarded
from odinws.http.routes import (
    ADMIN,
    common,
    current_services,
    health_code,
    health_of,
    json_error,
    opener,
    upgrade,
)
from odinws.monitoring import report
from odinws.scheduling import Slice
from odinws.services import Services
from odinws.settings import MAX_SHARDS, Settings

admin = Blueprint(ADMIN, __name__)

_RESIZE_SECONDS = 5.0  # how long the answer waits for all workers
_RATE = 100.0  # requests/s that a worker answers; more wait for their turn
_BURST_SECONDS = 1.0
_REST = 9.0  # times what a dear answer took, until the next one is made: at most a tenth of a worker
_LONGEST_REST_SECONDS = 1.0

log = structlog.get_logger("odinws.http.admin")


class Plane:
    """What the admin plane of one worker remembers: the gate, the pace, the answers that are being made.

    Args:
        gate: who may ask.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._logged = logs.OncePerSecond()
        self._due = 0.0
        self.stats = Shared(_stats)
        self.metrics = Shared(_exposition)

    def enter(self) -> Response | None:
        """Before each request: wait for its turn, or refuse it."""
        self._take_turn()
        header = request.environ.get
        asked = AdminRequest(
            peer=request.remote_addr or "",
            host=header("HTTP_HOST"),
            origin=header("HTTP_ORIGIN"),
            fetch_site=header("HTTP_SEC_FETCH_SITE"),
            authorization=header("HTTP_AUTHORIZATION"),
            protocols=header("HTTP_SEC_WEBSOCKET_PROTOCOL"),
            is_forwarded=is_forwarded(request.environ),
            is_open=request.blueprint == common.name,
        )
        denied = self._gate.denied(asked, time.monotonic())
        if denied is None:
            return None
        self._tell(denied, asked)
        response = json_error(denied.status, denied.code, denied.message)
        response.headers.extend(dict(denied.headers))
        return response

    def _take_turn(self) -> None:
        now = time.monotonic()
        self._due = max(self._due, now - _BURST_SECONDS) + 1.0 / _RATE
        if self._due > now:
            gevent.sleep(self._due - now)

    def _tell(self, denied: Denied, asked: AdminRequest) -> None:
        """Log a refusal, at most once a second of each kind."""
        more = self._logged.suppressed(denied.code, time.monotonic())
        if denied.code != "no_token" and more is not None:
            log.warning(
                "admin plane: refused", why=denied.code, address=asked.peer or "unix", not_logged=more
            )


class Shared:
    """An answer that is dear: one is made for all who wait, and then there is a rest.

    Args:
        make: the answer, by the state of the moment.
    """

    def __init__(self, make: Callable[[Services], Any]) -> None:
        self._make = make
        self._next: gevent.Greenlet | None = None  # makes the one that is not begun yet
        self._rest_until = 0.0

    def get(self, services: Services) -> Any:
        """An answer that was begun after this call."""
        if self._next is None:
            self._next = gevent.spawn(self._run, services)
        return self._next.get()

    def _run(self, services: Services) -> Any:
        while (rest := self._rest_until - time.monotonic()) > 0:
            gevent.sleep(rest)
        self._next = None
        began = time.monotonic()
        answer = self._make(services)
        ended = time.monotonic()
        self._rest_until = max(self._rest_until, ended + min(_LONGEST_REST_SECONDS, _REST * (ended - began)))
        return answer


def plane(settings: Settings, token: str) -> Plane:
    """The admin plane of a worker.

    Args:
        token: see `Settings.read_admin_token`.
    """
    return Plane(Gate(settings.admin_host, token, settings.admin_peer_origins))


def _plane() -> Plane:
    found: Plane = current_app.extensions[ADMIN]
    return found


@admin.route("/ws", websocket=True)
def websocket() -> ResponseReturnValue:
    """The WebSocket endpoint, where the server's figures may be watched."""
    services = current_services()
    verdict = services.admit_operator(
        request.remote_addr or "", request.environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL")
    )
    return upgrade(services, verdict, opener(services))


@admin.get("/health")
def health() -> Response:
    """The health of the whole server. 200 unless unhealthy."""
    whole = health_of(current_services())
    response = jsonify(whole)
    response.status_code = health_code(whole)
    return response


@admin.get("/stats")
def stats() -> Response:
    """The whole server and each worker in detail."""
    return jsonify(_plane().stats.get(current_services()))


@admin.get("/metrics")
def prometheus() -> Response:
    """The metrics of the whole server, for Prometheus."""
    body, content_type = _plane().metrics.get(current_services())
    return Response(body, content_type=content_type)


def _stats(services: Services) -> dict[str, Any]:
    services.sensor.sample()
    return report.stats(services.shared, services.settings, services.slot, services.admission.state)


def _exposition(services: Services) -> tuple[bytes, str]:
    services.sensor.sample()
    return metrics.exposition(
        services.shared, services.settings, services.admission.state, Slice().yield_if_over
    )


@admin.post("/debug/resize")
def resize() -> Response:
    """Change the number of shards in all workers that can."""
    services = current_services()
    given = request.args.get("shards", "")
    if not (given.isascii() and given.isdigit() and len(given) < 9 and 1 <= int(given) <= MAX_SHARDS):
        allowed = f"expected shards, a whole number from 1 to {MAX_SHARDS}, not {given[:32]!r}"
        return json_error(400, "invalid_shards", f"{allowed}; for example POST /debug/resize?shards=24")
    if not services.resizing.is_possible():
        return json_error(
            409,
            "cannot_resize",
            f"{services.strategy.name} can't be resized while it runs, and no worker has another strategy: "
            "start with WS_SHARD_STRATEGY=consistent-hash, or anew with another WS_NUM_SHARDS",
        )
    done = services.resizing.request(int(given), _RESIZE_SECONDS)
    slots = [slot for slot, _ in services.shared.living()]
    body = {"shards": int(given), "done": done, "workers": services.shared.resizes.words(slots)}
    response = jsonify(body)
    response.status_code = 200 if done else 202
    return response
