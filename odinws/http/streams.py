"""Event streams over plain HTTP: `/sse` for EventSource, `/stream` for scripts that read lines of JSON.

The socket of a request is handed over as that of a WebSocket is, with an answer that has no end. A browser's
EventSource shows nobody what the server has answered, and gives up for good unless that is 200 with its
content type. So one that may come back is told so in a stream that ends at once, and one that has been here
before and may not is told to stop by 204, as its standard has it.
"""

from __future__ import annotations

import _socket
import json
import random
from collections.abc import Iterable, Mapping
from functools import partial
from urllib.parse import parse_qsl

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import MethodNotAllowed

from odinws.access.credentials import TOKEN_FIELDS
from odinws.access.headers import cross_origin_headers, security_headers
from odinws.access.patterns import is_wildcard
from odinws.access.peer import is_local
from odinws.admission.decision import Admit, Refuse, UpgradeRequest
from odinws.close_codes import CloseReason
from odinws.http.handover import UPGRADE, Upgrade
from odinws.http.routes import current_services, json_error
from odinws.messages.event_format import EventFormat, JsonLines, ServerSentEvents
from odinws.messages.protocol import Position, Rejected, too_many, too_many_wildcards
from odinws.services import Services

streams = Blueprint("streams", __name__)

STREAMS = ("streams.server_sent_events", "streams.json_lines")  # endpoints that hand sockets over

_METHODS = ("GET", "OPTIONS")
_ALL_METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")  # HEAD has no end either
_FOREIGN = ("cross-site", "same-site")  # of Sec-Fetch-Site
_OTHER_FIELDS = 16  # of a query, beside the channels
_RETURN_SECONDS = CloseReason.GOING_AWAY.retry_after_seconds or 1.0
_RETURN_SPREAD = 4.0  # the longest time until a lost stream is asked for again, as a multiple of the shortest
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET",
    "Access-Control-Allow-Headers": "Authorization, Cache-Control, Last-Event-ID",
    "Access-Control-Max-Age": "600",
}
_CONTENT_TYPES: Mapping[type[EventFormat], str] = {
    ServerSentEvents: "text/event-stream",
    JsonLines: "application/x-ndjson",
}


@streams.route("/sse", methods=_ALL_METHODS, provide_automatic_options=False)
def server_sent_events() -> ResponseReturnValue:
    """Server-Sent Events."""
    return _answer(ServerSentEvents)


@streams.route("/stream", methods=_ALL_METHODS, provide_automatic_options=False)
def json_lines() -> ResponseReturnValue:
    """The same as one JSON object a line."""
    return _answer(JsonLines)


def _answer(kind: type[EventFormat]) -> ResponseReturnValue:
    services, header = current_services(), request.environ.get
    cross_origin = cross_origin_headers(services.settings.allowed_origins, header("HTTP_ORIGIN"))
    if request.method == "OPTIONS":
        return "", 204, {**_PREFLIGHT, **cross_origin}
    if request.method != "GET":
        raise MethodNotAllowed(_METHODS)
    answer = _follow(services, kind)
    if isinstance(answer, Response):
        answer.headers.update(cross_origin)
        return answer
    request.environ[UPGRADE] = answer
    fields = {
        **security_headers(),
        **cross_origin,
        "Content-Type": _CONTENT_TYPES[kind],
        "Cache-Control": "no-store, no-transform",
        "X-Accel-Buffering": "no",
    }
    return "", answer.code, list(fields.items())


def _follow(services: Services, kind: type[EventFormat]) -> Upgrade | Response:
    """What takes the socket, or a refusal."""
    header = request.environ.get
    most = services.limits.max_subscriptions + _OTHER_FIELDS
    try:
        fields = parse_qsl(header("QUERY_STRING", ""), keep_blank_values=True, max_num_fields=most)
    except ValueError:
        return json_error(400, "invalid_query", f"more than {most} fields in the query")
    named = {value: None for name, value in fields if name == "channel"}
    if not named:
        return json_error(400, "invalid_query", "name the channels: ?channel=token.BTC&channel=global")
    query = dict(fields)
    brought = _text(header("HTTP_LAST_EVENT_ID", "")) or query.get("last_event_id", "")
    peer = request.remote_addr or ""
    verdict = services.admit(
        UpgradeRequest(
            peer=peer,
            forwarded_for=header("HTTP_X_FORWARDED_FOR"),
            origin=header("HTTP_ORIGIN"),
            authorization=header("HTTP_AUTHORIZATION"),
            is_local=is_local(peer, request.environ),
            same_origin=header("HTTP_SEC_FETCH_SITE") == "same-origin",
            tokens=[value for name, value in fields if name in TOKEN_FIELDS] or _cookies(services),
        )
    )
    if isinstance(verdict, Refuse):
        return _refusal(services.event_formats[kind], verdict)
    followed, rejected = _sort(services, verdict, named)
    if not followed:
        services.give_back(verdict)
        status = 403 if any(problem.code == "FORBIDDEN" for problem in rejected) else 400
        message = "; ".join(f"{problem.channel}: {problem.message}" for problem in rejected[:4])
        return _refusal(services.event_formats[kind], Refuse(status, "channels", message))
    opening = _Opening(
        services,
        verdict,
        services.event_formats[kind],
        followed,
        rejected,
        Position.parse(brought) if brought else None,
        query.get("last", "0") not in ("", "0", "false"),
    )
    return Upgrade(opening.take, partial(services.give_back, verdict), opening.greet, 200)


def _sort(services: Services, entry: Admit, named: Iterable[str]) -> tuple[dict[str, None], list[Rejected]]:
    """The channels that a client gets, and those that it does not."""
    followed: dict[str, None] = {}
    rejected: list[Rejected] = []
    limits, wildcards = services.limits, 0
    for name in named:
        problem = services.settings.channels.refusal(entry.identity, name)
        if problem is None and len(followed) >= limits.max_subscriptions:
            problem = too_many(name, limits.max_subscriptions)
        elif problem is None and is_wildcard(name) and (wildcards := wildcards + 1) > limits.max_wildcards:
            problem = too_many_wildcards(name, limits.max_wildcards)
        if problem is None:
            followed[name] = None
        else:
            rejected.append(problem)
    return followed, rejected


def _cookies(services: Services) -> list[str]:
    """The token in a cookie, unless another one comes with the request.

    A browser sends cookies whoever has made the page. So only pages of listed origins may use them, and this
    server's own, of which it does not tell the origin.
    """
    header, name = request.environ.get, services.settings.token_cookie
    if not name or "HTTP_AUTHORIZATION" in request.environ:
        return []
    if not header("HTTP_ORIGIN") and header("HTTP_SEC_FETCH_SITE") in _FOREIGN:
        return []
    pairs = (part.strip(" \t").partition("=") for part in header("HTTP_COOKIE", "").split(";"))
    return [value for found, _, value in pairs if found == name][:1]


def _text(value: str) -> str:
    """A header as its client wrote it: WSGI has bytes as latin-1."""
    return value.encode("latin-1").decode(errors="replace")


def _refusal(wire_format: EventFormat, refusal: Refuse) -> Response:
    """A refusal, in a way that an EventSource understands."""
    header = request.environ.get
    response = json_error(refusal.status, refusal.reason, refusal.message)
    response.headers.extend(dict(refusal.headers))
    seconds = refusal.retry_after_seconds
    if seconds is not None:
        response.headers["Retry-After"] = str(seconds)
    if not isinstance(wire_format, ServerSentEvents):
        return response
    returns = "HTTP_LAST_EVENT_ID" in request.environ
    if seconds is None:
        return Response(status=204) if returns else response
    if not returns and header("HTTP_ACCEPT") != _CONTENT_TYPES[ServerSentEvents]:
        return response
    text = json.dumps({"type": "refused", "error": refusal.reason, "message": refusal.message})
    body = wire_format.retry(seconds) + wire_format.block(text.encode(), "refused")
    return Response(body, content_type=_CONTENT_TYPES[ServerSentEvents])


class _Opening:
    """An event stream from its admission until it is followed. `greet` comes before `take`."""

    def __init__(
        self,
        services: Services,
        entry: Admit,
        wire_format: EventFormat,
        followed: dict[str, None],
        rejected: list[Rejected],
        since: Position | None,
        wants_newest: bool,
    ) -> None:
        self._services = services
        self._entry = entry
        self._format = wire_format
        self._followed = followed
        self._rejected = rejected
        self._returns = since is not None
        self._since = since
        self._wants_newest = wants_newest
        self._client_id = services.clients.next_id()

    def greet(self) -> bytes:
        """When to come back, should the stream be lost; and the welcome, with where it begins."""
        services, begin = self._services, None
        if self._since is None and not self._wants_newest:
            self._since = begin = services.recovery.position()
        welcome = services.stream_welcome(self._client_id, [*self._followed], self._rejected, begin)
        retry = self._format.retry(_RETURN_SECONDS * random.uniform(1.0, _RETURN_SPREAD))
        return retry + self._format.encode(welcome)

    def take(self, descriptor: int | _socket.socket, early: bytes) -> None:
        """Open the stream.

        Args:
            descriptor: of the socket; it has a new owner from here on.
            early: what the client sent behind its request.
        """
        conn = self._services.open_stream(descriptor, self._entry, self._format, self._client_id)
        conn.followed, conn.since = self._followed, self._since
        conn.wants_newest, conn.returns = self._wants_newest, self._returns
        conn.start(early)
        conn.follow()
