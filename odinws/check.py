"""`odinws check`: what a server would find at its start and on its way to NATS, without one.

All problems are told, not the first alone. Nothing stays behind: the stream is not created, and the one
consumer that is made is deleted again.
"""

from __future__ import annotations

import asyncio
import enum
import json
import os
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec
import nats.errors
import nats.js.errors
import nkeys
from nats.aio.client import Client

from odinws import strategy_check
from odinws.access.errors import AccessError
from odinws.access.tokens import ANONYMOUS
from odinws.admission.authentication import sources, tokens
from odinws.assignment import DEFAULT_STRATEGY
from odinws.errors import FeedError, SettingsError
from odinws.feed import authentication, history, refusals, stream
from odinws.feed.embedded import EmbeddedNatsError, find_nats_server
from odinws.rollout import flags
from odinws.rollout.evaluation import Evaluation
from odinws.settings import Settings, platform_variables, read_channels_file, without_credentials

_SECONDS = 2.0  # for one answer of NATS
_CHANNELS_FILE = "WS_CHANNELS_FILE"
_KEY_FIELDS = ("jwt_secret", "jwt_secret_file", "jwks_file")
_NAME_MISMATCH = 10056  # error code of JetStream: the request got past the permissions, and no further
_NATS_ERRORS = (nats.errors.Error, OSError, TimeoutError, FeedError)
_FILE_ERRORS = (FeedError, ValueError, nkeys.NkeysError)  # while connecting: a file is not what it should be

_T = TypeVar("_T")


class State(enum.Enum):
    """What a finding says of the server."""

    OK = "ok"
    NOTE = "note"  # it runs, perhaps not as meant
    PROBLEM = "problem"  # it does not start, or not as the settings say


class Finding(NamedTuple):
    """One line of the check.

    Attributes:
        about: settings, channels, keys, flags or nats; of a channel: rule, subject, kept or token.
        text: what was found; of a problem also what is allowed, and what to do. No secrets.
    """

    state: State
    about: str
    text: str

    @property
    def is_problem(self) -> bool:
        """Whether the server does not start, or not as the settings say."""
        return self.state is State.PROBLEM

    def __str__(self) -> str:
        return f"{self.state.value:<8} {self.about:<9} {self.text}"


def _ok(about: str, text: str) -> Finding:
    return Finding(State.OK, about, text)


def _note(text: str, about: str = "nats") -> Finding:
    return Finding(State.NOTE, about, text)


def _problem(text: str, next_step: str) -> Finding:
    return Finding(State.PROBLEM, "nats", f"{text}; {next_step}")


class _DeniedError(Exception):
    """NATS does not let us do something; the text is its own."""


def findings(environ: Mapping[str, str] | None = None, *, offline: bool = False) -> list[Finding]:
    """Look at everything.

    Args:
        environ: the variables; None: those of this process.
        offline: leave NATS out.
    """
    environ = os.environ if environ is None else environ
    settings, problems = read_settings(environ)
    found = [
        Finding(State.PROBLEM, "settings", f"{error}; correct it or unset it")
        for error in problems
        if error.name != _CHANNELS_FILE
    ]
    if names := platform_variables(environ):
        found.append(_note(f"ignored, as they tell of a Kubernetes Service: {', '.join(names)}", "settings"))
    if len(found) == bool(names):
        found.append(_ok("settings", "can be used"))
    found += _channels_file(environ)
    if settings is None:
        return found
    # What a wrong setting would have decided is not looked at: its default says nothing.
    wrong = tuple(error.name for error in problems)
    if not _concerned(wrong, "WS_SUBJECT", _CHANNELS_FILE):
        found.append(_ok("channels", f"carried from {', '.join(settings.channels.subjects)}"))
    if not _concerned(wrong, "WS_ADMIN"):
        found.append(_admin(settings))
    if not _concerned(wrong, "WS_J"):
        found.extend(_keys(settings, time.time()))
    if not _concerned(wrong, "WS_FLAGS_FILE", "WS_SHARD_STRATEGY", "WS_WORKERS"):
        found.extend(_strategy(settings))
    if not offline and not _concerned(wrong, "NATS_", "JS_", "WS_SUBJECT", _CHANNELS_FILE):
        found.extend(asyncio.run(_collect(_nats(settings))))
    return found


def _channels_file(environ: Mapping[str, str]) -> Iterator[Finding]:
    """A line for each mistake in the file of channels, and for what may be one."""
    path = environ.get(_CHANNELS_FILE, "").strip()
    if path:
        file = read_channels_file(path)
        for mistake in file.mistakes:
            yield Finding(State.PROBLEM, "channels", f"{path}: {mistake}")
        for note in file.notes:
            yield _note(f"{path}: {note}", "channels")
        if not file.mistakes:
            yield _ok("channels", f"{path} has {len(file.rules)} patterns")


def channel(name: str, token: str | None, environ: Mapping[str, str] | None = None) -> list[Finding]:
    """Who may subscribe to a channel or wildcard, by which rule, and what it is in NATS.

    Args:
        token: of who asks; None: somebody without one.
        environ: as for `findings`.
    """
    environ = os.environ if environ is None else environ
    settings, problems = read_settings(environ)
    if settings is None or problems:
        return [Finding(State.PROBLEM, "settings", f"{error}; correct it or unset it") for error in problems]
    channels = settings.channels
    rule = channels.rule_of(name)
    if rule is None:
        rejected = channels.refusal(ANONYMOUS, name)
        return [Finding(State.PROBLEM, "rule", rejected.message if rejected else "")]
    place = f"number {channels.rules.index(rule) + 1} of {settings.channels_file or 'those without a file'}"
    who = {"public": "everybody", "own": "the subject in place of the first *", "claim": "by claim only"}
    found = [_ok("rule", f"{rule.pattern}, {place}: {who[rule.subscribe]}")]
    for other, _ in channels.rules_of(name):
        if other is not rule:
            found.append(_note(f"{other.pattern} decides on some of it: {who[other.subscribe]}", "rule"))
    policy = rule.slow_policy or settings.slow_policy
    compression = "compressed" if rule.compression and settings.compression else "not compressed"
    found.append(_ok("subject", ", ".join(channels.subjects_of(name))))
    found.append(_ok("kept", f"{channels.keep_of(name)}; slow clients: {policy}; {compression}"))
    found.append(_may(settings, name, token))
    return found


def _may(settings: Settings, name: str, token: str | None) -> Finding:
    """Whether somebody may subscribe."""
    identity, now = ANONYMOUS, time.time()
    try:
        if checker := tokens(settings, now):
            identity = checker.identify(token, now)
    except (AccessError, SettingsError) as error:
        return Finding(State.PROBLEM, "token", str(error))
    if token is not None and checker is None:
        return Finding(State.PROBLEM, "token", "can't be checked without keys, and nobody is asked for one")
    rejected = settings.channels.refusal(identity, name)
    asked = "somebody without a token" if identity.subject is None else f"the subject {identity.subject!r}"
    if rejected is not None:
        return Finding(State.PROBLEM, "token", f"{asked} may not: {rejected.message}")
    reason = "the rule says so" if identity.permissions is None else "the claim channels lists it"
    return _ok("token", f"{asked} may: {reason}")


def _admin(settings: Settings) -> Finding:
    """The admin plane, and whether its token can be read."""
    try:
        token = settings.read_admin_token()
    except SettingsError as error:
        return Finding(State.PROBLEM, "admin", f"{error}; correct it or unset it")
    return _ok("admin", f"at {settings.admin_addr}, {'with' if token else 'without'} a token")


def read_settings(environ: Mapping[str, str]) -> tuple[Settings | None, list[SettingsError]]:
    """Read the settings, and all that is wrong with them.

    Returns:
        The settings, with what is wrong left at its default, and the problems. None: no settings come about.
    """
    left = dict(environ)
    problems: list[SettingsError] = []
    while True:
        try:
            return Settings.from_environ(left), problems
        except SettingsError as error:
            problems.append(error)
            guilty = _guilty(left, error)
            if guilty is None:
                return None, problems
            del left[guilty]


def _guilty(environ: Mapping[str, str], error: SettingsError) -> str | None:
    """The variable without which this error is gone: the one it names, or the one it is compared with."""
    for name in (error.name, *environ):
        if name not in environ:
            continue
        try:
            Settings.from_environ({key: text for key, text in environ.items() if key != name})
        except SettingsError as other:
            if str(other) == str(error):
                continue
        return name
    return None


def _concerned(wrong: Iterable[str], *prefixes: str) -> bool:
    return any(name.startswith(prefixes) for name in wrong)


def _keys(settings: Settings, now: float) -> Iterator[Finding]:
    if not settings.checks_tokens:
        yield _ok("keys", "none: no client needs a token, and none can have user.* channels")
    for field in _KEY_FIELDS:
        # One source at a time: a problem of one must not hide another's.
        others = dict.fromkeys(_KEY_FIELDS, "") | {field: getattr(settings, field)}
        try:
            one = msgspec.structs.replace(settings, **others)
            found = [key for source in sources(one, now) for key in source.keys(now)]
        except SettingsError as error:
            yield Finding(State.PROBLEM, "keys", f"{error}; correct it or unset it")
            continue
        for key in found:
            yield _ok("keys", f"{key.algorithm} {key.kid or '(no name)'}")


def _strategy(settings: Settings) -> Iterator[Finding]:
    path = settings.flags_file
    if settings.strategy or not path:
        name = settings.strategy or DEFAULT_STRATEGY
        overruled = f"; WS_SHARD_STRATEGY wins over {path}" if path else ""
        try:
            strategy_check.check(name)
        except ValueError as error:
            yield Finding(State.PROBLEM, "settings", f"WS_SHARD_STRATEGY: {error}; the server does not start")
        else:
            yield _ok("flags", f"all workers run {name}{overruled}")
    if not path:
        return
    try:
        evaluation = Evaluation(settings.environment, socket.gethostname(), settings.workers)
        assignments = evaluation.assign_all(path, flags.read(path))
    except flags.FlagsError as error:
        runs = f"until it is mended, workers run {flags.fallback(path).strategy}"
        yield Finding(State.PROBLEM, "flags", f"WS_FLAGS_FILE: {error}; {runs}")
        return
    count = Counter(assignment.variant for assignment in assignments)
    words = ", ".join(f"{variant} {number}" for variant, number in sorted(count.items()))
    yield _ok("flags", f"{path} gives {words} of {settings.workers} workers")


# -- NATS --------------------------------------------------------------------------------------------------


async def _collect(found: AsyncIterator[Finding]) -> list[Finding]:
    return [finding async for finding in found]


def _words(error: BaseException) -> str:
    return " ".join(str(error).removeprefix("nats: ").split()) or f"no answer within {_SECONDS:g} s"


async def _nats(settings: Settings) -> AsyncIterator[Finding]:
    """Every server by itself; then, over the first that answers, what the feed does."""
    if settings.embedded_nats:
        try:
            yield _ok("nats", f"embedded: {find_nats_server()}")
        except EmbeddedNatsError as error:
            yield _problem(str(error), "or set NATS_URL")
        return
    for name, path in (
        ("NATS_CREDS_FILE", settings.nats_creds_file),
        ("NATS_NKEY_FILE", settings.nats_nkey_file),
    ):
        if path and not os.access(path, os.R_OK):
            yield _problem(f"{name}={path!r} can't be read", "correct it or unset it")
            return
    looked = False
    for url in settings.nats_urls:
        shown = without_credentials(url)
        denials: asyncio.Queue[str] = asyncio.Queue()
        client = Client()
        try:
            await _connect(client, url, settings, denials)
        except _FILE_ERRORS as error:
            files = "NATS_CREDS_FILE, NATS_NKEY_FILE, NATS_CA_FILE, NATS_CERT_FILE or NATS_KEY_FILE"
            yield _problem(f"our credentials can't be used: {_words(error)}", f"correct {files}")
            return
        except _NATS_ERRORS as error:
            if "authorization" in str(error).lower():
                way = "NATS_TOKEN, NATS_CREDS_FILE, NATS_NKEY_FILE or the URL"
                yield _problem(f"{shown} refuses our credentials", f"correct {way}")
            else:
                yield _problem(f"{shown} can't be used: {_words(error)}", "correct NATS_URL, or start it")
        else:
            yield _ok("nats", f"{shown} takes our credentials")
            if not looked:
                looked = True
                async for finding in _feed(client, settings, denials):
                    yield finding
            await client.close()


async def _connect(client: Client, url: str, settings: Settings, denials: asyncio.Queue[str]) -> None:
    """Connect once, and have what NATS denies later put into `denials`."""
    reasons: list[Exception] = []

    async def on_error(error: Exception) -> None:
        reasons.append(error)
        if refusals.is_refusal(error):
            subjects = settings.channels.subjects
            denials.put_nowait(refusals.words(error, settings.stream_name, subjects))

    options: dict[str, Any] = authentication.options(settings)
    try:
        await client.connect(
            servers=[url],
            name="odinws check",
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=int(_SECONDS),
            error_cb=on_error,
            **options,
        )
    except nats.errors.NoServersError as error:
        raise (reasons or [error])[-1] from None  # it only says that there is none left to try


async def _feed(client: Client, settings: Settings, denials: asyncio.Queue[str]) -> AsyncIterator[Finding]:
    """What the feed does with a connection, step by step."""
    js = client.jetstream(timeout=_SECONDS)
    name = settings.stream_name
    permit = "permit it to our user"
    try:
        if not await _has_jetstream(client, name, denials):
            async for finding in _core(client, settings, denials):
                yield finding
            return
        info = await _allowed(js.stream_info(name), denials)
    except nats.js.errors.NotFoundError:
        yield _note(f"stream {name} is not there: the first worker will create it")
        try:
            await _allowed(_may_create(client, name), denials)
        except (_DeniedError, *_NATS_ERRORS) as error:
            yield _problem(f"the stream can't be created: {_words(error)}", f"create it, or {permit}")
        return
    except _DeniedError as error:
        yield _problem(str(error), permit)
        return
    except nats.js.errors.APIError as error:
        yield _problem(f"stream {name}: {error.description}", "see the log of nats-server")
        return
    except _NATS_ERRORS as error:
        yield _problem(f"JetStream does not answer: {_words(error)}", "see the log of nats-server")
        return
    if differences := stream.differences(info, settings):
        text = f"stream {name} differs from the settings and stays as it is: {differences}"
        yield _note(text)
    else:
        yield _ok("nats", f"stream {name} is as the settings say, {info.state.messages} messages")
    channels = settings.channels
    steps: tuple[tuple[str, Coroutine[Any, Any, object]], ...] = (
        ("the feed consumes it", history.latest_of_all(client, js, name, channels.subjects)),
        ("clients can resume from it", history.latest(client, name, channels, channels.subjects[0])),
    )
    for what, step in steps:
        try:
            await _allowed(step, denials)
        except (_DeniedError, *_NATS_ERRORS) as error:
            yield _problem(f"not so: {what}: {_words(error)}", permit)
        else:
            yield _ok("nats", what)
    # As the answer to a consumer's flow control is published; this consumer does not exist.
    await client.publish(f"$JS.FC.{name}.odinws-check.none")
    await refusals.settle(client)
    if denials.empty():
        yield _ok("nats", "the feed answers flow control")
    else:
        yield _problem(f"not so: the feed answers flow control: {denials.get_nowait()}", permit)


async def _has_jetstream(client: Client, name: str, denials: asyncio.Queue[str]) -> bool:
    """As the feed finds out. Raises _DeniedError, and as `_NATS_ERRORS`."""
    try:
        return await _allowed(stream.has_jetstream(client, name), denials)
    except _DeniedError:
        if client._server_info.get("jetstream"):
            raise
        return False


async def _core(client: Client, settings: Settings, denials: asyncio.Queue[str]) -> AsyncIterator[Finding]:
    """The feed without JetStream."""
    yield _note("no JetStream for us: core NATS, and nobody can resume")
    for subject in settings.channels.subjects:
        await client.subscribe(subject)
    await refusals.settle(client)
    while not denials.empty():
        yield _problem(denials.get_nowait(), "permit it to our user")


async def _may_create(client: Client, name: str) -> None:
    """Ask for a stream in a way that can only be refused: the request names another one than its subject."""
    request = json.dumps({"name": f"{name}-not"}).encode()
    answer = await client.request(f"$JS.API.STREAM.CREATE.{name}", request, timeout=_SECONDS)
    error = json.loads(answer.data).get("error", {})
    if error.get("err_code") != _NAME_MISMATCH:
        raise FeedError(error.get("description", "an answer that is none"))


async def _allowed(step: Coroutine[Any, Any, _T], denials: asyncio.Queue[str]) -> _T:
    """The result of a step.

    Raises:
        _DeniedError: NATS says that we may not; the step itself would only see that no answer comes.
    """
    work = asyncio.ensure_future(step)
    denied = asyncio.ensure_future(denials.get())
    await asyncio.wait({work, denied}, return_when=asyncio.FIRST_COMPLETED)
    if not denied.done() and denials.empty():
        denied.cancel()
        return work.result()
    work.cancel()
    await asyncio.wait({work, denied})
    raise _DeniedError(denied.result())
