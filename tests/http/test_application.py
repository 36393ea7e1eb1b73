"""`odinws.http.application`: the short way of an upgrade ends as the long one in all that Flask documents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    after_this_request,
    current_app,
    g,
    has_app_context,
    has_request_context,
    request,
    request_finished,
    session,
    url_for,
)

from odinws.http.application import Application

UPGRADE = {"Upgrade": "websocket", "Connection": "keep-alive, Upgrade"}
FIELDS = [("Sec-WebSocket-Protocol", "odinws")]


def build(
    kind: type[Flask], hook: Callable[[Flask, Blueprint, list[str]], Any] | None = None
) -> tuple[Flask, list[str]]:
    """An application with routes of all kinds, and what its hooks note."""
    app, noted = kind("test"), []
    parts = Blueprint("parts", __name__)

    @parts.route("/ws", websocket=True)
    def accepted() -> Any:
        g.seen = getattr(g, "seen", 0) + 1
        assert current_app.name == "test"
        assert (request.endpoint, request.blueprint, request.view_args) == ("parts.accepted", "parts", {})
        facts = (
            request.method,
            request.path,
            request.args.get("a"),
            request.remote_addr,
            str(request.url_rule),
        )
        noted.append(f"{facts} {g.seen} {dict(session)} {url_for('parts.accepted', _external=True)}")
        return "", 101, FIELDS

    @parts.route("/refused", websocket=True)
    def refused() -> Response:
        return Response("no", status=403, headers={"X-A": "b"})

    @parts.route("/text", websocket=True)
    def text() -> str:
        return "text"

    @parts.route("/abort", websocket=True)
    def aborts() -> Any:
        abort(409)

    @parts.route("/bug", websocket=True)
    def bug() -> Any:
        raise KeyError("bug")

    @parts.route("/after", websocket=True)
    def after() -> Any:
        @after_this_request
        def add(response: Response) -> Response:
            response.headers["X-After"] = "this"
            return response

        return "", 101, FIELDS

    @parts.route("/<name>/ws", websocket=True)
    def named(name: str) -> Any:
        return "", 101, [("X-Name", name)]

    @parts.get("/ws")
    def plain() -> str:
        return "plain"

    @app.errorhandler(409)
    def conflict(_: Exception) -> tuple[str, int]:
        return "conflict", 409

    if hook is not None:
        hook(app, parts, noted)
    app.register_blueprint(parts)
    return app, noted


def ask(app: Flask, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers without those that are about bodies or only added here, and body of an answer."""
    environ = {"REMOTE_ADDR": "10.0.0.1"}
    answer = app.test_client().open(path, method=method, headers=headers, environ_base=environ)
    ours = ("Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy", "Cache-Control")
    left_out = (*ours, *(("Content-Type", "Content-Length") if answer.status_code == 101 else ()))
    if isinstance(app, Application):
        assert (ours[0] in answer.headers) == (answer.status_code != 101)
    assert not has_request_context()
    assert not has_app_context()
    return answer.status_code, {k: v for k, v in answer.headers.items() if k not in left_out}, answer.data


def before(app: Flask, parts: Blueprint, noted: list[str]) -> None:  # noqa: ARG001
    """Notes, and lets the request go on."""
    app.before_request(lambda: noted.append("before"))


def refusing(app: Flask, parts: Blueprint, noted: list[str]) -> None:  # noqa: ARG001
    """Answers instead of the view, for the routes of one blueprint."""
    parts.before_request(lambda: ("before", 418))


def after(app: Flask, parts: Blueprint, noted: list[str]) -> None:  # noqa: ARG001
    """Changes the answer."""

    @parts.after_app_request
    def add(response: Response) -> Response:
        response.headers["X-Hook"] = "after"
        return response


def teardown(app: Flask, parts: Blueprint, noted: list[str]) -> None:
    """At the end of a request, and of its context."""
    parts.teardown_request(lambda error: noted.append(f"request {error!r}"))
    app.teardown_appcontext(lambda error: noted.append(f"context {error!r}"))


def values(app: Flask, parts: Blueprint, noted: list[str]) -> None:  # noqa: ARG001
    """Sees what the view is called with."""
    app.url_value_preprocessor(lambda endpoint, arguments: noted.append(f"{endpoint} {arguments}"))


def signals(app: Flask, parts: Blueprint, noted: list[str]) -> None:  # noqa: ARG001
    """Receives what Flask sends."""
    request_finished.connect(lambda *_, response, **__: noted.append(response.status), app, weak=False)


HOOKS = [None, before, refusing, after, teardown, values, signals]


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize(
    "path", ["/ws", "/ws?a=1", "/refused", "/text", "/abort", "/bug", "/after", "/x/ws", "/none", "/ws/"]
)
def test_an_upgrade_is_answered_as_by_flask(path: str, hook: Any) -> None:
    """With hooks and without."""
    outcomes = []
    for kind in (Application, Flask):
        app, noted = build(kind, hook)
        outcomes.append(([ask(app, path, **UPGRADE) for _ in range(2)], noted))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {}),
        ("GET", {"Upgrade": "websocket"}),
        ("GET", {"Connection": "Upgrade"}),
        ("GET", {"Upgrade": "h2c", "Connection": "Upgrade"}),
        ("GET", {"Upgrade": "websocket", "Connection": "close"}),
        ("POST", UPGRADE),
        ("HEAD", UPGRADE),
        ("OPTIONS", UPGRADE),
    ],
)
def test_what_is_no_upgrade_is_answered_as_by_flask(method: str, headers: dict[str, str]) -> None:
    """On the same path."""
    mine, theirs = (ask(build(kind)[0], "/ws", method, **headers) for kind in (Application, Flask))
    assert mine == theirs


def test_hooks_are_why_an_upgrade_goes_the_long_way() -> None:
    """Without them it does not."""
    for hook in HOOKS:
        app, _ = build(Application, hook)
        ask(app, "/ws", **UPGRADE)
        short = app._short_ways  # type: ignore[attr-defined]
        assert set(short) == (set() if hook else {"/ws", "/refused", "/text", "/abort", "/bug", "/after"})


def test_a_host_that_is_not_trusted_is_refused_as_by_flask() -> None:
    """TRUSTED_HOSTS is looked at on the long way."""
    answers = []
    for kind in (Application, Flask):
        app, _ = build(kind)
        app.config["TRUSTED_HOSTS"] = ["other"]
        answers.append(ask(app, "/ws", **UPGRADE))
    assert answers[0] == answers[1]
    assert answers[0][0] == 400
