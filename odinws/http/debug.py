"""The paths of `/debug`: views into all workers, or one.

On the admin plane alone. Profiles and heap views run one at a time in the
whole server (409); of the others, a worker forwards at most four at a time (429). Arguments are bounded
(400).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import structlog
from flask import Blueprint, Response, jsonify, request

from odinws.debug import pages, verbs
from odinws.debug.agent import Answer, Question, ask
from odinws.debug.profile import Profile, collapsed, speedscope, tree
from odinws.debug.verbs import DebugError
from odinws.http.routes import current_services, json_error
from odinws.services import Services
from odinws.shared.debug_lock import BusyError

debug = Blueprint("debug", __name__, url_prefix="/debug")

log = structlog.get_logger("odinws.debug")

_AT_ONCE = 4
_HOTTEST = 30  # functions in a profile as JSON
_under_way = 0


@debug.errorhandler(DebugError)
def failed(problem: DebugError) -> Response:
    """An error as JSON."""
    response = json_error(problem.status, problem.code, problem.message)
    if problem.retry_after_seconds is not None:
        response.headers["Retry-After"] = str(max(1, round(problem.retry_after_seconds)))
    return response


@debug.get("")
def index() -> Response:
    """The list of views."""
    return _html(pages.index())


@debug.get("/events")
def events() -> Response:
    """The event log."""
    return jsonify({"events": current_services().shared.event_log.latest()})


@debug.get(f"/<any({', '.join(verbs.VERBS)}):verb>")  # other paths belong to other routes
def view(verb: str) -> Response:
    """One view of all workers, or of one."""
    requested = verbs.read(verb, request.args)
    services = current_services()
    pids = _workers(services, requested.worker)
    seconds = float(requested.options.get("seconds", 0.0))
    exclusive = verbs.VERBS[verb].exclusive
    with services.shared.debug_lock.held(verb, seconds) if exclusive else _limited():
        if exclusive:
            whom = "all workers" if requested.worker is None else f"worker {requested.worker}"
            log.info("a look inside", view=verb, workers=requested.worker or "all", seconds=seconds)
            services.shared.event_log.add("debug", f"a {verb} of {whom} for {seconds:g} s")
        answers = ask(services.shared.name, pids, Question(verb, requested.options), seconds)
    if verb == "profile" and requested.form != "json":
        return _profile(requested.form, answers, seconds)
    workers = [_worker_result(pid, answer, verb) for pid, answer in answers.items()]
    if requested.form == "html":
        return _html(pages.tables(f"odinws {verb}", workers))
    return jsonify({"view": verb, "options": requested.options, "workers": workers})


@debug.errorhandler(BusyError)
def busy(problem: BusyError) -> Response:
    """Say which view is running, and when to retry."""
    return failed(DebugError(409, "busy", problem.message, problem.retry_after_seconds))


def _workers(services: Services, wanted: int | None) -> list[int]:
    pids = [stats.pid for _, stats in services.shared.living()]
    if wanted is None:
        return pids
    if wanted not in pids:
        known = ", ".join(map(str, pids))
        raise DebugError(404, "no_such_worker", f"no worker {wanted} runs, there are {known}")
    return [wanted]


def _worker_result(pid: int, answer: Answer, verb: str) -> dict[str, Any]:
    if answer.error:
        return {"pid": pid, "error": answer.error}
    if verb == "profile":
        profile = msgspec.convert(answer.result, Profile)
        return {
            "pid": pid,
            "result": {
                "at": profile.at,
                "seconds": profile.seconds,
                "cpu_seconds": profile.cpu_seconds,
                "sampler_seconds": profile.sampler_seconds,
                "hz": profile.hz,
                "samples": len(profile.samples),
                "hottest": profile.hottest(_HOTTEST),
            },
        }
    return {"pid": pid, "result": answer.result}


def _profile(form: str, answers: dict[int, Answer], seconds: float) -> Response:
    """The profiles of all workers that answered, merged."""
    profiles = [msgspec.convert(answer.result, Profile) for answer in answers.values() if not answer.error]
    if not profiles:
        raise DebugError(
            502, "no_answer", "; ".join(f"worker {pid}: {a.error}" for pid, a in answers.items())
        )
    title = f"odinws, CPU of {len(profiles)} workers over {seconds:g} s"
    if form == "html":
        return _html(pages.flame(tree(profiles), title))
    if form == "collapsed":
        return Response(collapsed(profiles), content_type="text/plain; charset=utf-8")
    return Response(msgspec.json.encode(speedscope(profiles, title)), content_type="application/json")


def _html(text: str) -> Response:
    response = Response(text, content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = pages.POLICY
    return response


@contextmanager
def _limited() -> Iterator[None]:
    """Bound how many views this worker forwards at a time.

    Raises:
        DebugError: 429, there are too many.
    """
    global _under_way
    if _under_way >= _AT_ONCE:
        message = f"{_under_way} looks are under way, at most {_AT_ONCE} at a time: try again in 1 s"
        raise DebugError(429, "too_many", message, retry_after_seconds=1.0)
    _under_way += 1
    try:
        yield
    finally:
        _under_way -= 1
