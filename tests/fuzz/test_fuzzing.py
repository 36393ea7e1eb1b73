"""A share of a minute of what `python -m tests.fuzz` does for as long as one likes."""

from __future__ import annotations

import os
import traceback

import pytest

from tests.fuzz.campaign import campaign
from tests.fuzz.targets import TARGETS

SECONDS = 45.0  # over all targets
# Always the same, so that a change is judged by what it changes; `python -m tests.fuzz` draws another.
SEED = int(os.environ.get("ODINWS_FUZZ_SEED", "7"))


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_breaks(name: str) -> None:
    """The input is in the corpus if something does."""
    outcome = campaign(TARGETS[name], SEED, SECONDS / len(TARGETS), lambda *_: None)
    if outcome.finding is not None:
        _, data, path, error = outcome.finding
        pytest.fail(f"{data!r}, kept as {path}:\n{''.join(traceback.format_exception(error))}")
    assert outcome.tries > 10
