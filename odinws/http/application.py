"""The Flask application, with a short way to the routes whose sockets are handed over.

Most of what an accepted client would cost is for other requests: matching URLs, a session, hooks, headers of
a body. So for a plain upgrade, and for an event stream, the route is looked up, its view is called in a
request context, and if the socket is to be handed over that is all. Where anything is registered that is to
be called around a view (`before_request`, `after_request`, receivers of signals, ...), the request goes all
the way, as every other does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cached_property
from http import HTTPStatus
from typing import Any

from flask import Flask, Request, Response, signals
from flask.ctx import AppContext, RequestContext
from flask.globals import _cv_app, _cv_request
from flask.sessions import NullSession, SessionInterface, SessionMixin
from werkzeug.routing import MapAdapter, Rule

from odinws.access.headers import security_headers

SWITCH = "101 Switching Protocols"
STREAM = "200 OK"


class NoSessions(SessionInterface):
    """Nobody has a session here."""

    none = NullSession()

    def open_session(self, app: Flask, request: Request) -> SessionMixin:
        """Always the same, which can't be written."""
        return self.none


class UpgradeContext(RequestContext):
    """The request context of a plain upgrade. Its route is known, and its URL adapter is made when needed."""

    def __init__(self, app: Flask, environ: dict[str, Any], rule: Rule) -> None:
        self.app = app
        self.request = app.request_class(environ, populate_request=False)  # else a reference cycle
        self.request.url_rule, self.request.view_args = rule, {}
        self.flashes = None
        self._session = NoSessions.none
        self._after_request_functions = []
        self._cv_tokens = []

    @cached_property
    def url_adapter(self) -> MapAdapter | None:  # type: ignore[override]
        """For `url_for`."""
        return self.app.create_url_adapter(self.request)


class Application(Flask):
    """As Flask; without sessions, and with security headers on all answers but 101.

    Attributes:
        streams: endpoints, besides those of WebSockets, that hand the socket of a GET over.
    """

    session_interface = NoSessions()
    streams: Collection[str] = ()

    def wsgi_app(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        """As Flask's; a plain upgrade takes the short way."""
        rule = self._upgrade_rule(environ)
        if rule is None:
            return super().wsgi_app(environ, start_response)
        context = UpgradeContext(self, environ, rule)
        tokens = _cv_app.set(AppContext(self)), _cv_request.set(context)
        try:
            answer = self._answer(context, rule)
            if isinstance(answer, Response):
                return answer(environ, start_response)
            start_response(SWITCH if rule.websocket else STREAM, answer)
            return ()
        finally:
            _cv_request.reset(tokens[1])
            _cv_app.reset(tokens[0])

    def _answer(self, context: RequestContext, rule: Rule) -> Response | list[tuple[str, str]]:
        """The response of a view, or the headers with which it hands the socket over."""
        try:
            answer: Any
            try:
                answer = self.view_functions[rule.endpoint]()
            except Exception as error:  # noqa: BLE001 -- as Flask's
                answer = self.handle_user_exception(error)
            code = HTTPStatus.SWITCHING_PROTOCOLS if rule.websocket else HTTPStatus.OK
            if (
                isinstance(answer, tuple)
                and answer[:2] == ("", code)
                and not context._after_request_functions
            ):
                return list(answer[2])
            return self.finalize_request(answer)
        except Exception as error:  # noqa: BLE001 -- as Flask's
            return self.handle_exception(error)

    def process_response(self, response: Response) -> Response:
        """As Flask's; adds the security headers that the response does not have yet."""
        response = super().process_response(response)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            for name, value in security_headers().items():
                response.headers.setdefault(name, value)
        return response

    def _upgrade_rule(self, environ: dict[str, Any]) -> Rule | None:
        """The route of a plain upgrade, or of an event stream; None: the long way."""
        rule = self._short_ways.get(environ["PATH_INFO"])
        if rule is None or environ["REQUEST_METHOD"] != "GET" or environ["SCRIPT_NAME"]:
            return None
        if not rule.websocket:
            return rule
        is_websocket = environ.get("HTTP_UPGRADE", "").lower() == "websocket"
        options = environ.get("HTTP_CONNECTION", "").lower()
        is_upgrade = options == "upgrade" or "upgrade" in [
            option.strip(" \t") for option in options.split(",")
        ]
        return rule if is_websocket and is_upgrade else None

    @cached_property
    def _short_ways(self) -> dict[str, Rule]:
        """Routes of WebSockets and event streams with nothing around them, by path.

        Made at the first request: from then on Flask refuses to register anything.
        """
        if self.url_map.host_matching or self.subdomain_matching or self.config["TRUSTED_HOSTS"] is not None:
            return {}
        rules = self.url_map.iter_rules()
        return {
            rule.rule: rule
            for rule in rules
            if (rule.websocket or rule.endpoint in self.streams)
            and not rule.arguments
            and not rule.redirect_to
            and not self._has_hooks(rule)
        }

    def _has_hooks(self, rule: Rule) -> bool:
        blueprint = rule.endpoint.rpartition(".")[0]
        names = (None, *[blueprint[:end] for end, char in enumerate(blueprint + ".") if char == "."])
        around = (
            self.before_request_funcs,
            self.after_request_funcs,
            self.teardown_request_funcs,
            self.url_value_preprocessors,
        )
        sent = (
            signals.appcontext_pushed,
            signals.appcontext_tearing_down,
            signals.appcontext_popped,
            signals.request_started,
            signals.request_finished,
            signals.request_tearing_down,
        )
        return (
            any(hooks.get(name) for hooks in around for name in names)
            or bool(self.teardown_appcontext_funcs)
            or any(signal.has_receivers_for(self) for signal in sent)
        )
