"""The redelivery experiment: refusing without a delay multiplies a feed, whatever AckWait; ours is once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from odinws.lab.picture import draw
from odinws.lab.redelivery import ARMS, Result, run


@pytest.fixture(scope="module")
def result() -> Result:
    """Six seconds, two of them paused."""
    return asyncio.run(run(rate=25.0, seconds=6.0, pause=(2.0, 4.0)))


def test_what_is_refused_comes_again_at_once(result: Result) -> None:
    """All three NAK arms amplify alike: AckWait has nothing to do with it."""
    naks = [result.amplification(count) for count in result.counts if count.arm.naks and count.arm.acks]
    assert len(naks) == 3
    assert min(naks) > 10
    assert max(naks) < 3 * min(naks)


def test_silence_costs_at_most_what_ackwait_allows(result: Result) -> None:
    """A message that nobody acknowledges comes again only when AckWait is over."""
    [silent] = [count for count in result.counts if count.arm.acks and not count.arm.naks]
    assert result.amplification(silent) < 2


def test_without_acknowledgements_each_comes_once(result: Result) -> None:
    """Exactly."""
    [ours] = [count for count in result.counts if not count.arm.acks]
    assert ours.received == result.published
    assert 140 <= result.published <= 155


def test_the_picture(result: Result, tmp_path: Path) -> None:
    """Each consumer is named in it, with its figure."""
    draw(result, tmp_path / "lab.svg")
    text = (tmp_path / "lab.svg").read_text()
    assert all(arm.name in text for arm in ARMS)
    assert "1.0 per published message" in text
