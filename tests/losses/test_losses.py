"""What was published is delivered or told, whatever is done to the stream."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.losses.history import History, examples, make
from tests.losses.run import run


def check(histories: Mapping[int, History], directory: Path, *, restarts: bool) -> None:
    """None of them fails."""
    failed = run(histories, directory, restarts=restarts)
    assert not failed, "\n".join(
        f"{number} {histories[number]}: {wrong[:3]}" for number, wrong in failed.items()
    )


@pytest.mark.parametrize("restarts", [False, True], ids=["nats-server stays", "nats-server is killed"])
def test_histories(tmp_path: Path, restarts: bool) -> None:
    """A hundred that were never run before."""
    first = random.SystemRandom().randrange(1 << 40)
    histories = {seed: make(seed, durable=restarts) for seed in range(first, first + 100)}
    check(histories, tmp_path, restarts=restarts)


def test_examples(tmp_path: Path) -> None:
    """Those that have failed once."""
    check(examples(), tmp_path, restarts=False)
