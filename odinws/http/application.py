"""The Flask application, with a short way to the routes of WebSockets.

A third of what an accepted upgrade would cost is for others than it: matching URLs, a session, a body and its
type. Here the route of an upgrade is looked up, and its answer has no more than it needs. All else is as
Flask documents it: contexts, hooks (`before_request`, `after_request`, ...), signals and error handlers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from http import HTTPStatus
from typing import Any

from flask import Flask, Request, Response
from flask.sessions import NullSession, SessionInterface, SessionMixin
from werkzeug.routing import MapAdapter, Rule

from odinws.access.headers import security_headers


class SwitchingProtocols(Response):
    """The answer 101 of a route, which the handler completes. It has no headers but those it is given."""

    default_mimetype = None
    default_status = HTTPStatus.SWITCHING_PROTOCOLS

    def __call__(self, environ: Any, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """As a WSGI application."""
        start_response(self.status, self.headers.to_wsgi_list())
        return ()


class NoSessions(SessionInterface):
    """Nobody has a session here."""

    _none = NullSession()

    def open_session(self, app: Flask, request: Request) -> SessionMixin:
        """Always the same, which can't be written."""
        return self._none


class KnownRoute:
    """The URL adapter of a request whose route is known already. It makes a whole one if more is asked."""

    __slots__ = ("_rule", "_whole")

    def __init__(self, rule: Rule, whole: Callable[[], MapAdapter | None]) -> None:
        self._rule = rule
        self._whole = whole

    def match(self, **_: Any) -> tuple[Rule, dict[str, Any]]:
        """The route."""
        return self._rule, {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole(), name)


class Application(Flask):
    """As Flask; without sessions, and with security headers on all answers but 101."""

    session_interface = NoSessions()

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """As Flask's; for an upgrade one that knows the route."""
        whole = super().create_url_adapter
        rule = None if request is None else self._websocket_rule(request.environ)
        return whole(request) if rule is None else KnownRoute(rule, lambda: whole(request))  # type: ignore[return-value]

    def wsgi_app(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        """As Flask's; without looking for hooks around the view of an upgrade where there are none."""
        rule = None if self._has_hooks else self._websocket_rule(environ)
        if rule is None:
            return super().wsgi_app(environ, start_response)
        with self.request_context(environ):
            try:
                answer = self._answer(self.view_functions[rule.endpoint])
            except Exception as error:
                answer = self.handle_exception(error)
            return answer(environ, start_response)

    def _answer(self, view: Callable[[], Any]) -> Response:
        """As `full_dispatch_request` would answer if there are no hooks."""
        try:
            answer = view()
        except Exception as error:
            answer = self.handle_user_exception(error)
        return answer if isinstance(answer, SwitchingProtocols) else self.finalize_request(answer)

    def process_response(self, response: Response) -> Response:
        """As Flask's; adds the security headers that the response does not have yet."""
        response = super().process_response(response)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            for name, value in security_headers(page=False).items():
                response.headers.setdefault(name, value)
        return response

    def _websocket_rule(self, environ: dict[str, Any]) -> Rule | None:
        """The route of an upgrade, if it has a fixed path and there is nothing else to look at."""
        rule = self._websocket_rules.get(environ["PATH_INFO"])
        if rule is None or environ["REQUEST_METHOD"] != "GET" or environ.get("SCRIPT_NAME"):
            return None
        options = environ.get("HTTP_CONNECTION", "").lower().split(",")
        is_upgrade = environ.get("HTTP_UPGRADE", "").lower() == "websocket"
        return rule if is_upgrade and "upgrade" in [option.strip(" \t") for option in options] else None

    @cached_property
    def _websocket_rules(self) -> dict[str, Rule]:
        """By path. At the first request all routes are registered, else Flask says so."""
        if self.url_map.host_matching or self.subdomain_matching or self.config["TRUSTED_HOSTS"] is not None:
            return {}
        rules = self.url_map.iter_rules()
        return {rule.rule: rule for rule in rules if rule.websocket and not rule.arguments}

    @cached_property
    def _has_hooks(self) -> bool:
        """Whether anything is to be called around a view besides that of one blueprint."""
        hooks = (self.before_request_funcs, self.after_request_funcs, self.url_value_preprocessors)
        return any(functions.get(None) for functions in hooks)
