"""`odinws.connections.ledger`: the sum is exact, and who holds most goes first."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
from odinws.access.channels import DEFAULT
from odinws.connections.centrifugo_commands import _Place
from odinws.connections.ledger import (
    FRAME_BYTES,
    JOIN_BYTES,
    READER_BYTES,
    SUBSCRIPTION_BYTES,
    Ledger,
    largest_first,
)
from odinws.connections.outbox import Outbox
from odinws.messages import frames
from odinws.messages.centrifugo import CentrifugoJson
from odinws.messages.frames import FrameReader
from odinws.messages.protocol import Join
from odinws.messages.wire_format import Bundle
from tests.fakes import FakeConnection
from tests.strategies.support import cooperative_locks

COUNT = 1000


class Holder:
    """An account."""

    held = 0


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1 << 20))), st.integers(0, 1 << 21))
def test_the_sum_is_that_of_the_accounts(charges: list[tuple[int, int]], bound: int) -> None:
    """However they are charged; and every charge that leaves too much is told."""
    accounts = [Holder() for _ in range(5)]
    told: list[int] = []
    ledger = Ledger(bound, lambda: told.append(ledger.total))
    sums = []
    for index, held in charges:
        ledger.charge(accounts[index], held)
        assert accounts[index].held == held
        assert ledger.total == sum(account.held for account in accounts)
        sums.append(ledger.total)
    assert told == [total for total in sums if total > bound]


OF_TWO = st.tuples(st.sampled_from("abc"), st.sampled_from([None, "x", "y"]), st.integers(0, 1000))


@given(st.lists(OF_TWO, max_size=30), st.integers(0, 500))
def test_each_account_goes_once_and_of_whoever_has_most(
    held: list[tuple[str, str | None, int]], share: int
) -> None:
    """At each step it is the largest account of a client whose excess nobody exceeds; little ones stay."""
    owners = [(address,) if subject is None else (address, subject) for address, subject, _ in held]
    excess = [max(0, size - share) for *_, size in held]
    left = {index for index in range(len(held)) if excess[index]}
    for index in largest_first(((owners[i], held[i][2], i) for i in range(len(held))), share):
        sums = Counter[str]()
        for other in left:
            sums.update(dict.fromkeys(owners[other], excess[other]))
        best = [client for client in owners[index] if sums[client] == max(sums.values())]
        assert any(
            excess[index] == max(excess[other] for other in left if client in owners[other])
            for client in best
        )
        left.remove(index)
    assert not left


def test_many_small_ones_of_one_client_go_before_a_large_one_of_another() -> None:
    """To spread it over connections gains nothing."""
    accounts = [(["many"], 40, number) for number in range(10)] + [(["one"], 100, 10)]
    order = list(largest_first(accounts, 0))
    assert order.index(10) == 8  # the many have 80 left


def test_nobody_goes_because_of_the_neighbours() -> None:
    """Who holds no more than an equal share stays, however much others hold at the same address."""
    large = [(["shared", f"s{number}"], 1000, number) for number in range(5)]
    little = [(["shared"], 30, number) for number in range(5, 200)]
    assert set(largest_first(large + little, 30)) == set(range(5))


def test_many_subjects_of_one_address_are_one_client() -> None:
    """And so are many addresses of one subject."""
    accounts = [(["a", f"s{number}"], 40, number) for number in range(10)] + [(["b", "s"], 100, 10)]
    assert list(largest_first(accounts, 0)).index(10) == 8
    accounts = [([f"a{number}", "s"], 40, number) for number in range(10)] + [(["b", "t"], 100, 10)]
    assert list(largest_first(accounts, 0)).index(10) == 8


@contextmanager
def allocated() -> Iterator[list[float]]:
    """How many bytes the block has allocated that stay, for each of `COUNT`."""
    taken: list[float] = []
    gc.collect()
    tracemalloc.start()
    try:
        yield taken
        gc.collect()
        taken.append(tracemalloc.get_traced_memory()[0] / COUNT)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("arm", ["sync-dict", "single-lock"])
def test_a_channel_of_ones_own_takes_what_is_charged_for_it(arm: str) -> None:
    """With the longest name, parsed for each subscription, and walked once. Shards remember some more."""
    with cooperative_locks():
        strategy = strategies.create(arm)
    conn = FakeConnection("c")
    strategy.add(conn)
    with allocated() as taken:
        for number in range(COUNT):
            channel = f"token.{number:0{DEFAULT.max_bytes - 6}}"
            strategy.subscribe(conn, channel)
            assert [list(batch) for batch in strategy.batches(channel)] == [[conn]]
    assert SUBSCRIPTION_BYTES / 2 < taken[0] <= SUBSCRIPTION_BYTES


def test_an_answer_that_waits_takes_what_is_charged_for_it() -> None:
    """A frame has an entry, and its bytes have a head."""
    with allocated() as taken:
        outbox = Outbox((), 0)
        for number in range(COUNT):
            outbox.append(Bundle.control(frames.pong(b"%d" % number)))
    assert outbox.held_bytes == outbox.size_bytes + FRAME_BYTES * COUNT
    assert outbox.held_bytes / 2 < COUNT * taken[0] <= outbox.held_bytes


def test_a_reader_takes_what_is_charged_for_it() -> None:
    """Beside what it keeps of a message."""
    with allocated() as taken:
        readers = [FrameReader(1 << 16) for _ in range(COUNT)]
        for reader in readers:
            assert list(reader.feed(b"\x01\x81abcdx")) == []
    assert [reader.held_bytes for reader in readers] == [1] * COUNT
    assert READER_BYTES / 3 < taken[0] <= READER_BYTES


def test_a_subscription_that_is_decided_on_takes_what_is_charged_for_it() -> None:
    """With the longest name, a position, and what becomes of it."""
    joins: list[tuple[Join, object]] = []
    places: dict[str, _Place] = {}
    since: dict[str, int | None] = {}
    with allocated() as taken:
        for number in range(1000, 1000 + COUNT):
            channel = f"token.{number:0{DEFAULT.max_bytes - 6}}"
            wish = {"channel": channel, "recover": True, "offset": number, "epoch": "x"}
            line = msgspec.json.encode({"id": number, "subscribe": wish})
            (request,) = CentrifugoJson().decode(line)
            assert isinstance(request.command, Join)
            joins.append((request.command, request.tag))
            since[channel] = request.command.since
            places[channel] = _Place(request.command.since, True)
    assert JOIN_BYTES / 2 < taken[0] <= JOIN_BYTES
