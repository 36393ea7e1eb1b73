"""`odinws.admission`: every combination of facts, and when a refused client comes back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws.admission import Admit, Refuse, decide
from odinws.board import REFUSALS

spreads = st.floats(0, 1)


@given(limit=st.integers(1, 1 << 30), spread=spreads)
def test_an_accepting_worker_with_room_admits(limit: int, spread: float) -> None:
    """Nothing else is asked for."""
    assert decide(accepting=True, has_room=True, limit=limit, spread=spread) == Admit()


@given(limit=st.integers(1, 1 << 30), spread=spreads)
def test_a_full_server_refuses(limit: int, spread: float) -> None:
    """503 with the limit in the message, and a return within 5 to 15 s."""
    verdict = decide(accepting=True, has_room=False, limit=limit, spread=spread)
    assert isinstance(verdict, Refuse)
    assert (verdict.status, verdict.reason) == (503, "capacity")
    assert verdict.message == f"server holds its {limit} connections"
    assert 5 <= verdict.retry_after_seconds <= 15


@given(has_room=st.booleans(), spread=spreads)
def test_a_draining_worker_refuses_whatever_its_room(has_room: bool, spread: float) -> None:
    """503, and a return within 1 to 3 s: another worker or server is there by then."""
    verdict = decide(accepting=False, has_room=has_room, limit=1, spread=spread)
    assert isinstance(verdict, Refuse)
    assert (verdict.status, verdict.reason) == (503, "draining")
    assert 1 <= verdict.retry_after_seconds <= 3


def test_spread_reaches_both_ends() -> None:
    """0 is the earliest return, 1 the latest, so that refused clients do not come back at once."""
    for accepting, bounds in ((True, (5, 15)), (False, (1, 3))):
        first, last = (
            decide(accepting=accepting, has_room=False, limit=1, spread=spread) for spread in (0.0, 1.0)
        )
        assert isinstance(first, Refuse)
        assert isinstance(last, Refuse)
        assert (first.retry_after_seconds, last.retry_after_seconds) == bounds


def test_every_reason_is_a_counter() -> None:
    """The board has a place for each reason that can be given."""
    for accepting in (True, False):
        verdict = decide(accepting=accepting, has_room=False, limit=1, spread=0.5)
        assert isinstance(verdict, Refuse)
        assert verdict.reason in REFUSALS
