"""The JetStream stream of the feed: created if it is missing, never altered. And what it no longer has.

At its front a stream deletes by age and size, and its first sequence tells. It may also have holes inside, by
a limit per subject, messages that expire or roll up others, acknowledgements, deletes and purges.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import (
    ConsumerConfig,
    ConsumerInfo,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamInfo,
)

from odinws.errors import FeedError
from odinws.feed.events import Lost
from odinws.settings import Settings

LISTED_HOLES = 5000  # with more deleted messages inside, the stream is not asked which: some 50 KB
_OFF_FOR_ACCOUNT = 10039  # error code of the JetStream API
_INACTIVE_TOO_LONG = 10153  # another: the stream has a limit for how long a consumer stays without us
_SECONDS = 2.0  # for an answer
_MANY, _LARGE_BYTES, _LONG_SECONDS = 10_000, 16 << 20, 60.0  # what a stream keeps that does not forget soon
_EXACT = 1 << 53  # numbers above are not exact in JavaScript

log = structlog.get_logger("odinws.feed")


def subjects(settings: Settings) -> str:
    """The subjects of the stream: all that begin with the prefix."""
    return settings.subject_prefix + ">"


async def find_or_create(js: JetStreamContext, settings: Settings) -> StreamInfo:
    """The stream that the settings name, created if there is none.

    Raises:
        nats.js.errors.APIError: JetStream refuses, for example because another stream has these subjects.
    """
    try:
        return await js.stream_info(settings.stream_name)
    except nats.js.errors.NotFoundError:
        log.info("creating stream", stream=settings.stream_name, subjects=subjects(settings))
        return await js.add_stream(
            StreamConfig(
                name=settings.stream_name,
                subjects=[subjects(settings)],
                retention=RetentionPolicy.LIMITS,
                discard=DiscardPolicy.OLD,
                storage=StorageType.FILE,
                max_age=settings.stream_max_age_seconds,
                max_msgs=settings.stream_max_msgs,
                max_bytes=settings.stream_max_bytes,
                num_replicas=settings.stream_replicas,
                allow_direct=True,
            )
        )


def differences(info: StreamInfo, settings: Settings) -> str:
    """How a stream differs from the settings, for humans; "" if it does not."""
    wanted = {
        "subjects": [subjects(settings)],
        "max_age": settings.stream_max_age_seconds,
        "max_msgs": settings.stream_max_msgs,
        "max_bytes": settings.stream_max_bytes,
        "num_replicas": settings.stream_replicas,
    }
    found = {name: getattr(info.config, name) for name in wanted}
    return ", ".join(f"{n} is {found[n]}, not {wanted[n]}" for n in wanted if found[n] != wanted[n])


def warnings(info: StreamInfo, last_seq: int) -> tuple[str, ...]:
    """What an operator should know of a stream besides how it differs from the settings.

    Args:
        last_seq: what its last sequence was some seconds ago; 0: not known.
    """
    name, found = info.config.name, []
    if info.state.last_seq > _EXACT:
        found.append(f"stream {name} counts above 2^53: JavaScript clients can't tell its sequences apart")
    if left_out(info) is NO_HOLES:
        found.append(f"stream {name} mirrors a part of another: what it has lost can't be told from the rest")
    for origin in [info.mirror, *(info.sources or ())]:
        if origin is not None and origin.error:
            found.append(f"stream {name} gets nothing of {origin.name}: {origin.error['description']}")
        elif origin is not None and origin.lag and info.state.last_seq == last_seq:
            found.append(f"stream {name} does not go on, and {origin.name} has more")
    return tuple(found)


def epoch(info: StreamInfo) -> str:
    """The epoch of a stream. It contains the time of creation, so a recreated stream has another one."""
    created = info.created.timestamp() if isinstance(info.created, datetime) else 0.0
    return f"{info.config.name}-{int(created * 1000):x}"


class Holes:
    """The sequences that a stream does not have.

    Args:
        first_seq: it has nothing before.
        deleted: what it does not have behind that, ascending; None: not known.
    """

    def __init__(self, first_seq: int, deleted: Sequence[int] | None) -> None:
        self._first_seq = first_seq
        self._deleted = deleted

    def are(self, first_seq: int, deleted: int) -> bool:
        """Whether a stream that begins at `first_seq`, with so many deleted behind that, has these."""
        return self._deleted is not None and (self._first_seq, len(self._deleted)) == (first_seq, deleted)

    def within(self, first: int, last: int) -> Lost | None:
        """What is lost between two sequences, inclusive, from the first hole to the last; None: nothing.

        Which channels are concerned is not known. The reason is `uncertain` if it is not even known whether
        there are holes.
        """
        if first > last:
            return None
        front = min(last, self._first_seq - 1)
        if self._deleted is None and front < last:
            return Lost(None, first, last, "uncertain")
        inside = self._deleted or ()
        low, high = bisect_left(inside, first), bisect_right(inside, last)
        begin = first if front >= first else inside[low] if low < high else 0
        end = inside[high - 1] if low < high else front
        return Lost(None, begin, max(end, front), "expired") if begin else None


NO_HOLES = Holes(0, ())
ALL_HOLES = Holes(1 << 64, ())


def needs_filter(info: StreamInfo, subjects: Sequence[str]) -> bool:
    """Whether a consumer of these subjects should leave out the other messages of the stream.

    Without a filter everything comes that the stream has, so what does not come is a hole. With one it may as
    well be of others. So a stream is consumed as a whole if it gets holes by its settings, has many, or keeps
    messages for so short a time that they may be gone before they have come.
    """
    config = info.config
    is_ours = set(config.subjects or ()) <= set(subjects) and not config.sources and config.mirror is None
    has_many = (info.state.num_deleted or 0) > LISTED_HOLES
    return not (is_ours or gets_holes(config) or forgets_soon(config) or has_many)


def gets_holes(config: StreamConfig) -> bool:
    """Whether a stream deletes messages between others by itself."""
    return (
        config.max_msgs_per_subject > 0
        or bool(config.allow_msg_ttl)
        or config.allow_rollup_hdrs
        or config.retention not in (None, RetentionPolicy.LIMITS)
        or config.mirror is not None
    )


def forgets_soon(config: StreamConfig) -> bool:
    """Whether a stream may delete messages before a consumer that is a little late has received them."""
    limits = ((config.max_msgs, _MANY), (config.max_bytes, _LARGE_BYTES), (config.max_age, _LONG_SECONDS))
    return any(limit is not None and 0 < limit < enough for limit, enough in limits)


def left_out(info: StreamInfo) -> Holes:
    """What is lost of the sequences that a consumer without a filter passes over: all, as a rule.

    A mirror that leaves out subjects keeps the sequences of its origin, so its holes say nothing.
    """
    mirror = info.config.mirror
    return NO_HOLES if mirror and (mirror.filter_subject or mirror.subject_transforms) else ALL_HOLES


async def info(client: Client, name: str, *, deleted: bool = False) -> StreamInfo:
    """What JetStream says of a stream.

    Args:
        deleted: list what it does not have inside.

    Raises:
        nats.js.errors.APIError: there is none of this name, or JetStream refuses.
        FeedError: nobody answers.
        nats.errors.Error: NATS is lost.
    """
    found: StreamInfo = StreamInfo.from_response(await _ask(client, name, deleted=deleted))
    return found


async def _ask(client: Client, name: str, *, deleted: bool = False) -> dict[str, Any]:
    request = json.dumps({"deleted_details": True}) if deleted else ""
    subject = f"$JS.API.STREAM.INFO.{name}"
    try:
        answer = await client.request(subject, request.encode(), timeout=_SECONDS)
    except (nats.errors.NoRespondersError, TimeoutError) as error:
        raise FeedError(f"nobody answers {subject}") from error
    found: dict[str, Any] = json.loads(answer.data)
    if "error" in found:
        raise nats.js.errors.APIError.from_error(found["error"])
    return found


async def has_jetstream(client: Client, name: str) -> bool:
    """Whether JetStream answers for our account: our server's, or one that it leads to.

    Raises:
        FeedError: nobody answers, and it may be there all the same.
        nats.errors.Error: NATS is lost.
    """
    try:
        await _ask(client, name)
    except nats.js.errors.APIError as error:
        return bool(error.err_code != _OFF_FOR_ACCOUNT)
    except FeedError as error:
        if isinstance(error.__cause__, nats.errors.NoRespondersError):
            return False
        raise
    return True


async def add_consumer(
    client: Client, js: JetStreamContext, name: str, config: ConsumerConfig
) -> ConsumerInfo:
    """Create a consumer that acknowledges nothing; if the stream limits its life without us, it is shorter.

    Raises:
        nats.js.errors.APIError: JetStream refuses.
        FeedError: nobody answers.
        nats.errors.Error: NATS is lost.
    """
    if config.max_ack_pending is None:
        # A limit of pending acknowledgements would else be set for it, and refused.
        config = config.evolve(max_ack_pending=-1)
    try:
        return await _create_consumer(js, name, config)
    except nats.js.errors.APIError as error:
        if error.err_code != _INACTIVE_TOO_LONG:
            raise
    limits = (await _ask(client, name))["config"].get("consumer_limits") or {}
    seconds = limits.get("inactive_threshold", 0) / 1e9 or config.inactive_threshold
    return await _create_consumer(js, name, config.evolve(inactive_threshold=seconds))


async def _create_consumer(js: JetStreamContext, name: str, config: ConsumerConfig) -> ConsumerInfo:
    try:
        return await js.add_consumer(name, config)
    except nats.errors.TimeoutError as error:
        raise FeedError(f"nobody answers $JS.API.CONSUMER.CREATE.{name}") from error


async def holes(client: Client, name: str, known: Holes = NO_HOLES) -> Holes:
    """What a stream does not have now. Raises as `info`.

    Args:
        known: what it did not have before. No hole is ever filled, so as many are the same.
    """
    found = await info(client, name)
    state = found.state
    if not state.num_deleted or left_out(found) is NO_HOLES:
        return Holes(state.first_seq, ())
    if state.num_deleted > LISTED_HOLES:
        return Holes(state.first_seq, None)
    if known.are(state.first_seq, state.num_deleted):
        return known
    state = (await info(client, name, deleted=True)).state
    return Holes(state.first_seq, sorted(state.deleted or ()))
