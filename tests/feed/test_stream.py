"""`odinws.feed.stream`: what a stream does not have, and how it is consumed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.js.api import RetentionPolicy, StreamConfig, StreamInfo, StreamSource, StreamState

import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws.feed.events import Lost
from odinws.feed.stream import LISTED_HOLES, Holes, needs_filter


@given(st.integers(1, 12), st.sets(st.integers(1, 20)), st.integers(1, 20), st.integers(0, 20))
def test_holes(first_seq: int, deleted: set[int], first: int, last: int) -> None:
    """From the first to the last hole of a range; nothing where there is none."""
    gone = set(range(first_seq)) | deleted
    wanted = sorted(gone & set(range(first, last + 1)))
    found = Holes(first_seq, sorted(seq for seq in deleted if seq > first_seq)).within(first, last)
    if first_seq in deleted:
        return  # the first sequence is that of a message
    assert found == (Lost(None, wanted[0], wanted[-1], "expired") if wanted else None)


def test_holes_that_are_not_known() -> None:
    """The front is known all the same."""
    holes = Holes(5, None)
    assert holes.within(2, 4) == Lost(None, 2, 4, "expired")
    assert holes.within(2, 5) == Lost(None, 2, 5, "uncertain")
    assert holes.within(7, 6) is None


def test_holes_that_are_the_same() -> None:
    """None is ever filled, so there are as many as before, and the same front."""
    holes = Holes(5, (7, 9))
    assert holes.are(5, 2)
    assert not holes.are(5, 3)
    assert not holes.are(6, 2)
    assert not Holes(5, None).are(5, 0)


def info(deleted: int = 0, **config: Any) -> StreamInfo:
    """Of a stream."""
    state = StreamState(messages=1, bytes=1, first_seq=1, last_seq=1, consumer_count=0, num_deleted=deleted)
    return StreamInfo(
        config=StreamConfig(name="S", **{"subjects": ["odin.>"], **config}),
        state=state,
        created=datetime.now(UTC),
    )


@pytest.mark.parametrize(
    ("found", "subjects", "filtered"),
    [
        (info(), ["odin.>"], False),
        (info(), ["odin.token.*", "odin.global"], True),
        (info(subjects=["odin.>", "other.>"]), ["odin.>"], True),
        (info(sources=[StreamSource(name="A")]), ["odin.>"], True),
        (info(deleted=LISTED_HOLES), ["odin.global"], True),
        (info(deleted=LISTED_HOLES + 1), ["odin.global"], False),
        (info(max_msgs_per_subject=1), ["odin.global"], False),
        (info(allow_msg_ttl=True), ["odin.global"], False),
        (info(allow_rollup_hdrs=True), ["odin.global"], False),
        (info(max_msgs=100), ["odin.global"], False),
        (info(max_bytes=1000), ["odin.global"], False),
        (info(max_age=10.0), ["odin.global"], False),
        (info(max_msgs=1_000_000, max_age=3600.0), ["odin.global"], True),
        (info(retention=RetentionPolicy.INTEREST), ["odin.global"], False),
        (info(subjects=None, mirror=StreamSource(name="A")), ["odin.global"], False),
    ],
)
def test_what_a_consumer_leaves_out(found: StreamInfo, subjects: list[str], filtered: bool) -> None:
    """The messages of others, where no hole can be taken for them."""
    assert needs_filter(found, subjects) is filtered
