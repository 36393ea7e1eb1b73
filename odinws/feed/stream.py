"""The JetStream stream of the feed: created if it is missing, never altered."""

from __future__ import annotations

from datetime import datetime

import nats.js.errors
import structlog
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig, StreamInfo

from odinws.settings import Settings

JETSTREAM_OFF_FOR_ACCOUNT = 10039  # error code of the JetStream API

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


def epoch(info: StreamInfo) -> str:
    """The epoch of a stream. It contains the time of creation, so a recreated stream has another one."""
    created = info.created.timestamp() if isinstance(info.created, datetime) else 0.0
    return f"{info.config.name}-{int(created * 1000):x}"
