"""Inputs that are nearly right, made by hypothesis."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.structured import STRUCTURED
from tests.fuzz.targets import TARGETS
from tests.fuzz.targets.base import MAX_BYTES


def test_every_target_has_its_inputs() -> None:
    """None is forgotten."""
    assert set(STRUCTURED) == set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
def test_what_is_nearly_right(name: str, data: st.DataObject) -> None:
    """What must hold for any input holds for those that get far."""
    text = data.draw(STRUCTURED[name])
    assert len(text) <= MAX_BYTES
    assert TARGETS[name].check(text) is not None


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.binary(max_size=200))
def test_what_is_nothing_at_all(name: str, data: bytes) -> None:
    """It holds for any bytes, too."""
    assert TARGETS[name].check(data) is not None
