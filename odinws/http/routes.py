"""The HTTP paths of `docs/protocol.md`, and the upgrade on `/ws`."""

from __future__ import annotations

import _socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, current_app, jsonify, request, send_from_directory
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import MethodNotAllowed

from odinws import metrics
from odinws.access.headers import security_headers
from odinws.access.peer import may_inspect
from odinws.admission.decision import Admit, Refuse, UpgradeRequest
from odinws.errors import HandshakeError
from odinws.http.handover import UPGRADE, Upgrade, check_handshake
from odinws.messages import deflate
from odinws.monitoring import report
from odinws.scheduling import Slice
from odinws.services import Services
from odinws.settings import MAX_SHARDS

routes = Blueprint("odinws", __name__)

_RESIZE_SECONDS = 5.0  # how long the answer waits for all workers
_PAGE = Path(__file__).parents[1] / "dashboard"
# Fixed here, as the machine's table of MIME types may lack some or have others.
_PAGE_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".ts": "text/plain",
    ".svg": "image/svg+xml",
}


def current_services() -> Services:
    """The services of this worker."""
    services: Services = current_app.extensions["odinws"]
    return services


def may_look_inside(services: Services) -> bool:
    """Whether the current request may inspect the server."""
    headers = request.headers
    return may_inspect(
        request.remote_addr or "",
        headers.get("Authorization"),
        services.settings.admin_token,
        x_forwarded_for=headers.get("X-Forwarded-For"),
        forwarded=headers.get("Forwarded"),
        trusted=services.settings.believed_proxies,
    )


def json_error(status: int, code: str, message: str) -> Response:
    """An error response, as JSON."""
    response = jsonify({"error": code, "message": message})
    response.status_code = status
    return response


@routes.route("/ws", websocket=True)
def websocket() -> ResponseReturnValue:
    """The WebSocket endpoint."""
    services = current_services()

    def accept(entry: Admit, deflate: int) -> Upgrade:
        opening = services.opening(entry, deflate)
        return Upgrade(opening.take, partial(services.give_back, entry), opening.greet)

    return _upgrade(services, accept)


def echo() -> ResponseReturnValue:
    """The WebSocket endpoint `/echo`, only with WS_TEST_ECHO."""
    services = current_services()

    def accept(entry: Admit, deflate: int) -> Upgrade:
        def take(descriptor: int | _socket.socket, early: bytes) -> None:
            services.open_echo(descriptor, early, entry, deflate)

        return Upgrade(take, partial(services.give_back, entry))

    return _upgrade(services, accept)


def _upgrade(services: Services, accept: Callable[[Admit, int], Upgrade]) -> ResponseReturnValue:
    """Refuse a client, or answer 101: then the handler passes the socket to what `accept` gives.

    `accept` gets the verdict, and the window agreed for compression, in bits; 0: none.
    """
    environ = request.environ
    header = environ.get  # without the detour over `request.headers`
    verdict = services.admit(
        UpgradeRequest(
            peer=request.remote_addr or "",
            forwarded_for=header("HTTP_X_FORWARDED_FOR"),
            origin=header("HTTP_ORIGIN"),
            authorization=header("HTTP_AUTHORIZATION"),
            protocols=header("HTTP_SEC_WEBSOCKET_PROTOCOL"),
            query=header("QUERY_STRING", ""),
            forwarded=header("HTTP_FORWARDED"),
        )
    )
    if isinstance(verdict, Refuse):
        response = json_error(verdict.status, verdict.reason, verdict.message)
        response.headers.extend(dict(verdict.headers))
        if verdict.retry_after_seconds is not None:
            response.headers["Retry-After"] = str(verdict.retry_after_seconds)
        return response
    try:
        check_handshake(environ)
    except HandshakeError as error:
        services.give_back(verdict)
        response = json_error(error.status, "handshake", error.message)
        response.headers.extend(dict(error.headers))
        return response
    offers = header("HTTP_SEC_WEBSOCKET_EXTENSIONS") if services.settings.compression else None
    agreement = deflate.negotiate(offers) if offers else deflate.NONE
    environ[UPGRADE] = accept(verdict, agreement.bits)
    fields = []
    if agreement.header:
        fields.append(("Sec-WebSocket-Extensions", agreement.header))
    if verdict.subprotocol:
        fields.append(("Sec-WebSocket-Protocol", verdict.subprotocol))
    return "", 101, fields


@routes.get("/ws")
def websocket_expected() -> Response:
    """A GET without an upgrade: 426."""
    response = json_error(426, "upgrade_required", "this is a WebSocket endpoint: send an upgrade request")
    response.headers["Upgrade"] = "websocket"
    response.headers["Connection"] = "Upgrade"
    return response


@routes.get("/")
@routes.get("/dashboard/<name>")
def dashboard(name: str = "index.html") -> Response:
    """The dashboard and its assets."""
    response = send_from_directory(_PAGE, name, mimetype=_PAGE_TYPES.get(Path(name).suffix))
    response.headers.update(security_headers(page=True))
    return response


@routes.get("/client.js")
@routes.get("/client.d.ts")
def client_library() -> Response:
    """The browser's client library, for pages of any origin."""
    name = request.path.rpartition("/")[2]
    response = dashboard(name)
    response.headers["Access-Control-Allow-Origin"] = "*"
    return response


@routes.get("/health")
def health() -> Response:
    """The health of the whole server. 200 unless unhealthy."""
    services = current_services()
    services.sensor.sample()
    body = report.health(services.shared, services.settings, services.feed.status, services.admission.state)
    response = jsonify(body)
    response.status_code = 503 if body["status"] == "unhealthy" else 200
    return response


@routes.get("/livez")
def live() -> Response:
    """Liveness: this worker answers. Does not fail under load."""
    return jsonify({"status": "alive"})


@routes.get("/readyz")
def ready() -> Response:
    """Readiness: whether to send clients here."""
    services = current_services()
    reasons = report.not_ready(services.shared, services.settings, services.feed.status)
    response = jsonify({"status": "not ready" if reasons else "ready", "reasons": reasons})
    response.status_code = 503 if reasons else 200
    return response


@routes.get("/stats")
def stats() -> Response:
    """The whole server and each worker in detail, for this machine or with `WS_ADMIN_TOKEN`."""
    services = current_services()
    if not may_look_inside(services):
        return json_error(
            403, "forbidden", "only from this machine, or with WS_ADMIN_TOKEN as a bearer token"
        )
    services.sensor.sample()
    return jsonify(report.stats(services.shared, services.settings, services.slot, services.admission.state))


@routes.post("/debug/resize")
def resize() -> Response:
    """Change the number of shards in all workers that can. Access as for `/stats`, but not from a page."""
    services = current_services()
    if not may_look_inside(services) or "Origin" in request.headers:  # any local page could
        return json_error(403, "forbidden", "only from this machine, or with WS_ADMIN_TOKEN; not from a page")
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


@routes.get("/metrics")
def prometheus() -> Response:
    """The metrics of the whole server, for Prometheus."""
    services = current_services()
    services.sensor.sample()
    body, content_type = metrics.exposition(
        services.shared, services.settings, services.admission.state, Slice().yield_if_over
    )
    return Response(body, content_type=content_type)


@routes.app_errorhandler(404)
def unknown_path(_: Any) -> Response:
    """404, with the paths that exist."""
    paths = sorted(str(rule) for rule in current_app.url_map.iter_rules())
    return json_error(404, "not_found", f"no such path; there are {', '.join(dict.fromkeys(paths))}")


@routes.app_errorhandler(405)
def wrong_method(error: MethodNotAllowed) -> Response:
    """405, with the methods that are allowed."""
    allowed = ", ".join(sorted({*(error.valid_methods or ())} - {"HEAD", "OPTIONS"}))
    response = json_error(405, "method_not_allowed", f"{request.method} is not allowed here, {allowed} is")
    response.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
    return response
