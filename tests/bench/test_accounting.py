"""What the measuring client makes of gaps: delivered, told and missing, to the message."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.client.driver import Wire
from tests.bench.scripted_server import SECONDS, Peer, text_frame
from tests.bench.test_client import ACK, CLOSE, Conversation, load_of, messages, observe, talk_to

NUMBERED = Wire(numbered=True)
SLOW_CLOSE = text_frame(struct.pack("!H", 4008), CLOSE)


def gap(first: int, last: int, channel: str = "token.T0") -> bytes:
    """The frame of a gap, as odinws sends it."""
    told = {"type": "gap", "channel": channel, "from": first, "to": last, "reason": "slow"}
    return text_frame(json.dumps(told, separators=(",", ":")))


def sums(final: dict[str, Any], tally: str = "tally") -> dict[str, int]:
    """What there is to account for, zeros left out."""
    others = {name: final[name] for name in ("tail_missing", "after_close", "unequal", "stalled_unequal")}
    return {kind: count for kind, count in {**final[tally], **others}.items() if count}


TEXTS = [text_frame(text) for text in messages(1, 9)]


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        pytest.param(TEXTS, {}, id="all"),
        pytest.param([TEXTS[0], gap(2, 8), TEXTS[8]], {"told": 7}, id="told"),
        pytest.param([TEXTS[0], gap(2, 4), gap(5, 8), TEXTS[8]], {"told": 7}, id="told in two"),
        pytest.param([gap(1, 9)], {"told": 9}, id="nothing but told"),
        pytest.param([*TEXTS[:7], gap(8, 9)], {"told": 2}, id="told at the end"),
        pytest.param(
            [TEXTS[0], gap(3, 8), TEXTS[8]],
            {"told": 6, "missing": 1, "gaps": 1, "unequal": 1},
            id="too little",
        ),
        pytest.param([TEXTS[0], gap(2, 7)], {"told": 6, "tail_missing": 2, "unequal": 1}, id="end untold"),
        pytest.param(
            [*TEXTS[:3], gap(3, 8), TEXTS[8]], {"told": 5, "duplicates": 1}, id="told though delivered"
        ),
        pytest.param(
            [TEXTS[0], gap(2, 8), *TEXTS[4:]], {"told": 7, "duplicates": 4}, id="delivered though told"
        ),
        pytest.param([*TEXTS[:4], SLOW_CLOSE], {"after_close": 5}, id="closed"),
        pytest.param([gap(1, 3), TEXTS[3], SLOW_CLOSE], {"told": 3, "after_close": 5}, id="told and closed"),
        pytest.param(
            [TEXTS[0], TEXTS[2], SLOW_CLOSE],
            {"gaps": 1, "missing": 1, "after_close": 6, "unequal": 1},
            id="lost and closed",
        ),
    ],
)
def test_delivered_and_told_make_what_was_published(
    tmp_path: Path, frames: Sequence[bytes], expected: dict[str, int]
) -> None:
    """Every message is delivered, told or behind the close; anything else is found."""
    assert sums(observe(tmp_path, Conversation(frames), 9, wire=NUMBERED)) == expected


def test_a_gap_of_sequences_counts_only_its_channel(tmp_path: Path) -> None:
    """Of three channels a stretch of the stream holds every third message; it may begin and end anywhere."""
    texts = [text_frame(text) for text in messages(3, 12)]
    names = ("token.T0", "token.T1", "token.T2")
    # Channel 1 has the sequences 2, 5, 8, 11; channel 2 has 3, 6, 9, 12.
    frames = [
        *texts[0::3],
        texts[1],
        gap(3, 10, names[1]),
        texts[10],
        gap(1, 7, names[2]),
        texts[8],
        texts[11],
    ]
    final = observe(tmp_path, Conversation(frames), 12, load_of(1, 3, 3), NUMBERED)
    assert sums(final) == {"told": 4}
    assert final["gap_notices"] == 2


def test_a_gap_of_a_channel_that_nobody_asked_for_is_stray(tmp_path: Path) -> None:
    """A gap counts for the channel it names."""
    final = observe(tmp_path, Conversation([*TEXTS, gap(1, 2, "token.T7")]), 9, wire=NUMBERED)
    assert sums(final) == {"stray": 1}


def test_without_numbers_a_gap_tells_nothing(tmp_path: Path) -> None:
    """A server whose numbers are its own may say what it likes: what does not come is missing."""
    final = observe(tmp_path, Conversation([TEXTS[0], gap(2, 8), TEXTS[8]]), 9)
    assert sums(final) == {"missing": 7, "gaps": 1, "unequal": 1}


@pytest.mark.parametrize("old", [b'"seq":2', b'"prev":1'])
def test_wrong_numbers_are_found(tmp_path: Path, old: bytes) -> None:
    """The envelope's seq and prev must be the ones that follow from the feed's own count."""
    texts = messages(1, 3)
    assert texts[1].count(old) == 1
    texts[1] = texts[1].replace(old, old[:-1] + b"7")
    final = observe(tmp_path, Conversation([text_frame(text) for text in texts]), 3, wire=NUMBERED)
    assert sums(final) == {"misnumbered": 1}


def test_a_stalled_client_is_accounted_for_when_it_reads_again(tmp_path: Path) -> None:
    """What lay in the kernel when the server closed is read at the end, close code and all."""
    go = threading.Event()

    def script(peer: Peer) -> None:
        peer.read()
        peer.text(ACK)
        assert go.wait(SECONDS)
        for frame in (*TEXTS[:2], gap(3, 4), TEXTS[4], SLOW_CLOSE):
            peer.send(frame)
        peer.close()

    scenario = load_of(1, stall_permille=1000)
    with talk_to(script, scenario, tmp_path, NUMBERED) as clients:
        clients.wait_ready(SECONDS)
        clients.begin()
        go.set()
        assert clients.wait_drained(0.3, SECONDS)
        assert clients.end()["stalled_closed"] == 0, "it does not look before it reads"
        clients.quiet()
        assert clients.wait_drained(0.3, SECONDS)
        final = clients.finish(9)
    assert sums(final, "stalled_tally") == {"told": 2, "after_close": 4}
    assert (final["stalled_delivered"], final["closes"]) == (3, {"4008": 1})
