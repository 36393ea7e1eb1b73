"""`odinws.rollout.targeting`: shares are exact to a worker, sticky, and only grow."""

from __future__ import annotations

import math

import cbor2
import mmh3
from hypothesis import given
from hypothesis import strategies as st

import tests.fakes  # noqa: F401 - its hypothesis profile
from odinws.rollout.evaluation import Evaluation
from odinws.rollout.flags import with_share
from odinws.rollout.members import Server, wanted
from odinws.rollout.targeting import FLAG, rank, targeting_key

NAMES = st.text(min_size=1, max_size=20)
SIZES = st.integers(1, 32)
DOCUMENT = {
    "flags": {
        "shard-strategy": {
            "state": "ENABLED",
            "variants": {"new": "fnv-sharded", "old": "sync-dict"},
            "defaultVariant": "old",
        }
    }
}


def nearest(percent: int, workers: int) -> int:
    """How many workers a share means, in whole numbers: of two that are equally near the fewer."""
    return -((50 - percent * workers) // 100)


def ordinals_with(evaluation: Evaluation, percent: int) -> set[int]:
    """The workers that have the variant."""
    assignments = evaluation.assign_all("flags.json", with_share(DOCUMENT, "new", percent))
    return {ordinal for ordinal, assignment in enumerate(assignments) if assignment.variant == "new"}


@given(NAMES, NAMES, SIZES, st.integers(0, 100))
def test_a_share_is_exact_to_a_worker(deployment: str, host: str, workers: int, percent: int) -> None:
    """flagd's own evaluator gives the variant to as many workers as the share means."""
    found = ordinals_with(Evaluation(deployment, host, workers), percent)
    assert len(found) == nearest(percent, workers)
    assert abs(len(found) - percent * workers / 100) <= 0.5


def test_every_share_of_every_size() -> None:
    """All whole percents for some sizes: a larger share only adds workers."""
    for workers in (1, 3, 4, 8):
        evaluation, last = Evaluation("production", "host-1", workers), set[int]()
        for percent in range(101):
            found = ordinals_with(evaluation, percent)
            assert len(found) == nearest(percent, workers)
            assert last <= found
            last = found


def test_a_quarter_of_four() -> None:
    """The share that the documentation speaks of, on any host."""
    counts = {len(ordinals_with(Evaluation("d", f"host-{n}", 4), 25)) for n in range(30)}
    assert counts == {1}


def hash_of(key: str) -> int:
    """What flagd's `fractional` without a bucketing value makes of a key: 0 to 2^32 - 1."""
    return mmh3.hash(cbor2.dumps([FLAG, key], canonical=True), signed=False)


@given(NAMES, NAMES, st.integers(1, 128), st.data())
def test_a_key_is_sticky_and_in_its_stratum(
    deployment: str, host: str, workers: int, data: st.DataObject
) -> None:
    """The same whenever it is asked for; its hash falls just above the middle of the stratum of its rank."""
    ordinal = data.draw(st.integers(0, workers - 1))
    key = targeting_key(deployment, host, ordinal, workers)
    assert key == targeting_key(deployment, host, ordinal, workers)
    assert key.startswith(f"{deployment}/{host}/{ordinal}#")
    middle = (rank(deployment, host, ordinal, workers) + 0.5) / workers
    assert middle < hash_of(key) / 2**32 < middle + 0.011 / workers


@given(NAMES, NAMES, SIZES)
def test_ranks_are_a_permutation(deployment: str, host: str, workers: int) -> None:
    """Each place has its own."""
    assert sorted(rank(deployment, host, ordinal, workers) for ordinal in range(workers)) == list(
        range(workers)
    )


def test_other_hosts_have_other_ranks() -> None:
    """A small share does not always meet the first worker of each host."""
    assert {rank("d", f"host-{n}", 0, 4) for n in range(30)} == {0, 1, 2, 3}


def test_a_worker_too_many_shares_a_stratum() -> None:
    """One beyond the workers, as after SIGTTIN, has a key of its own all the same."""
    extra = targeting_key("d", "h", 5, 4)
    assert extra.startswith("d/h/5#")
    assert math.floor(4 * hash_of(extra) / 2**32) == rank("d", "h", 1, 4)


@given(st.integers(1, 300), st.integers(0, 100))
def test_what_a_watch_waits_for(workers: int, percent: int) -> None:
    """The count that `watch` expects is the one that the keys give."""
    server = Server("u", workers, "flags.json", "", ())
    assert wanted([server], percent) == {"u": nearest(percent, workers)}
