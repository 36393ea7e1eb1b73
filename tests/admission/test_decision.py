"""`odinws.admission.decision`: every way in and every refusal, at a time and a draw of the test's."""

from __future__ import annotations

import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from odinws.access.channels import DEFAULT
from odinws.access.errors import AccessError
from odinws.access.tokens import ANONYMOUS
from odinws.admission.decision import Admission, Admit, Refuse, UpgradeRequest
from odinws.close_codes import REFUSALS
from odinws.errors import SettingsError
from odinws.settings import Settings
from odinws.shared import SharedState
from tests.access.material import NOW, SECRET, token


class World:
    """The admission of one worker."""

    def __init__(self, **settings: str) -> None:
        self.now = 1000.0
        self.drawn = 0.5
        self.shared = SharedState(4096)
        self.stats = self.shared.workers[self.shared.claim()]
        self.stats.pid = 1
        self.settings = Settings.from_environ({"WS_WORKERS": "1", "WS_CPU_LIMIT": "1", **settings})
        self.admission = Admission(
            self.settings,
            self.shared,
            self.stats,
            clock=lambda: self.now,
            now=lambda: NOW,
            draw=lambda: self.drawn,
        )

    def enter(self, peer: str = "10.0.0.1", *, is_local: bool = False, **headers: Any) -> Admit | Refuse:
        """One upgrade request."""
        return self.admission.enter(UpgradeRequest(peer, **headers, is_local=is_local))

    def refused(self, peer: str = "10.0.0.1", *, is_local: bool = False, **headers: Any) -> Refuse:
        """One that is refused, and counted by its reason."""
        before = list(self.stats.totals.refused)
        held = self.stats.connections
        verdict = self.enter(peer, is_local=is_local, **headers)
        assert isinstance(verdict, Refuse)
        before[REFUSALS.index(verdict.reason)] += 1
        assert list(self.stats.totals.refused) == before
        assert self.stats.connections == held
        return verdict

    def busy(self, cores: float) -> None:
        """Let the guard see this use of CPU."""
        self.stats.cpu_cores, self.stats.sampled_at = cores, time.monotonic()
        self.now += 1
        self.admission.observe()


def test_everybody_enters_where_nothing_is_asked() -> None:
    """The slot is taken; everything may be had."""
    world = World()
    verdict = world.enter()
    assert isinstance(verdict, Admit)
    assert (verdict.address, verdict.subprotocol) == ("10.0.0.1", None)
    assert verdict.identity.permissions is None
    assert world.stats.connections == 1
    assert sum(world.stats.totals.refused) == 0


@pytest.mark.parametrize(("drawn", "wait"), [(0.0, 1), (1.0, 3)])
def test_a_server_that_leaves(drawn: float, wait: int) -> None:
    """503 for all, and back within 1 to 3 s: another server is there by then."""
    world = World()
    world.admission.going_away = True
    world.drawn = drawn
    verdict = world.refused()
    assert (verdict.status, verdict.reason, verdict.retry_after_seconds) == (503, "draining", wait)


def test_a_full_server() -> None:
    """503 with the limit, and back within 10 to 30 s; a slot that comes free is given again."""
    world = World(WS_MAX_CONNECTIONS="2")
    assert isinstance(world.enter(), Admit)
    assert isinstance(world.enter(), Admit)
    verdict = world.refused()
    assert (verdict.status, verdict.reason, verdict.message) == (503, "capacity", "connections 2 >= 2")
    assert 10 <= (verdict.retry_after_seconds or 0) <= 30
    SharedState.release(world.stats)
    assert isinstance(world.enter(), Admit)


def test_a_busy_server_admits_gradually() -> None:
    """Under full load some still enter, the others hear the reason of the log; afterwards all do."""
    world = World(WS_ADMISSION_FLOOR_RATE="10")
    world.busy(0.99)
    admitted = 0
    with capture_logs() as logs:
        for _ in range(500):
            world.now += 0.01
            verdict = world.enter()
            admitted += isinstance(verdict, Admit)
    assert 50 <= admitted <= 56
    assert world.stats.totals.refused[REFUSALS.index("cpu")] == 500 - admitted
    assert isinstance(verdict, Refuse)
    assert verdict.message == "CPU 99.0% > 75.0%"
    assert 5 <= len(logs) <= 6  # one a second
    first, second = logs[:2]
    assert first["event"] == "Connection rejected by ResourceGuard"
    assert first["log_level"] == "warning"
    assert (first["max_connections"], first["reason"]) == (10_000, "CPU 99.0% > 75.0%")
    assert "not_logged" not in first
    assert second["not_logged"] > 80
    for _ in range(10):
        world.busy(0.1)
    assert all(isinstance(world.enter(), Admit) for _ in range(300))


def test_a_dry_run_refuses_nobody_for_load() -> None:
    """It counts whom it would have refused; connections have an end all the same."""
    world = World(WS_ADMISSION_DRY_RUN="true", WS_MAX_CONNECTIONS="40")
    world.busy(0.99)
    with capture_logs() as logs:
        assert all(isinstance(world.enter(), Admit) for _ in range(40))
    assert world.stats.totals.would_refuse[1] > 30
    assert [line["event"] for line in logs] == ["Connection would be rejected by ResourceGuard"]
    assert world.refused().reason == "capacity"


def test_one_address_has_a_rate() -> None:
    """429 with the time to wait, for it alone; programs on this machine are exempt."""
    world = World(WS_UPGRADE_RATE="1", WS_UPGRADE_BURST="3")
    assert all(isinstance(world.enter(), Admit) for _ in range(3))
    verdict = world.refused()
    assert (verdict.status, verdict.reason) == (429, "rate")
    assert 1 <= (verdict.retry_after_seconds or 0) <= 2
    assert isinstance(world.enter("10.0.0.2"), Admit)
    assert all(isinstance(world.enter("127.0.0.1", is_local=True), Admit) for _ in range(10))
    assert all(isinstance(world.enter("127.0.0.1"), Admit) for _ in range(3)), "what is forwarded"
    assert world.refused("127.0.0.1").reason == "rate"
    world.now += 1
    assert isinstance(world.enter(), Admit)


def test_nobody_need_be_exempt() -> None:
    """A proxy on this machine that names nobody looks like a program on it."""
    world = World(WS_UPGRADE_RATE="1", WS_UPGRADE_BURST="3", WS_UPGRADE_EXEMPT_LOOPBACK="false")
    assert all(isinstance(world.enter("127.0.0.1", is_local=True), Admit) for _ in range(3))
    assert world.refused("127.0.0.1", is_local=True).reason == "rate"


def test_who_is_forwarded_is_not_on_this_machine() -> None:
    """Whatever address comes out: a trusted network can say 127.0.0.1 too."""
    world = World(WS_TRUSTED_PROXIES="10.0.0.0/8", WS_MAX_PER_ADDRESS="1")
    local = world.enter("127.0.0.1", is_local=True)
    assert isinstance(local, Admit)
    assert local.address == "127.0.0.1"
    assert isinstance(world.enter("127.0.0.1", is_local=True), Admit)
    forwarded = world.enter("10.0.0.1", forwarded_for="127.0.0.1")
    assert isinstance(forwarded, Admit)
    assert forwarded.address == "127.0.0.1 (forwarded)"
    assert world.refused("10.0.0.1", forwarded_for="127.0.0.1").reason == "address"


def test_operators_take_no_place_of_their_address() -> None:
    """They are more than it may have, and when they have left all is as before."""
    world = World(WS_MAX_PER_ADDRESS="1", WS_UPGRADE_EXEMPT_LOOPBACK="false")
    operators = [world.admission.enter_operator("127.0.0.1", None) for _ in range(3)]
    for operator in operators:
        assert isinstance(operator, Admit)
        world.admission.left(operator.address, operator.identity)
    assert isinstance(world.enter("127.0.0.1", is_local=True), Admit)
    assert world.refused("127.0.0.1", is_local=True).reason == "address"


def test_an_operator_is_refused_for_want_of_a_slot_alone() -> None:
    """Neither load, rates, origins nor tokens keep it out, and it may watch."""
    world = World(
        WS_MAX_CONNECTIONS="2", WS_UPGRADE_RATE="1", WS_UPGRADE_BURST="1", WS_ORIGIN_REQUIRED="true"
    )
    world.busy(0.99)
    for _ in range(2):
        verdict = world.admission.enter_operator("127.0.0.1", "odinws")
        assert isinstance(verdict, Admit)
        assert (verdict.inspects, verdict.identity, verdict.subprotocol) == (True, ANONYMOUS, "odinws")
    full = world.admission.enter_operator("127.0.0.1", None)
    assert isinstance(full, Refuse)
    assert (full.status, full.reason) == (503, "capacity")
    world.admission.going_away = True
    leaving = world.admission.enter_operator("127.0.0.1", None)
    assert isinstance(leaving, Refuse)
    assert leaving.reason == "draining"


def test_the_server_has_a_rate() -> None:
    """Over all addresses and all workers; also of this machine, if that is wished."""
    world = World(
        WS_UPGRADE_RATE="0",
        WS_SERVER_UPGRADE_RATE="10",
        WS_SERVER_UPGRADE_BURST="5",
        WS_UPGRADE_EXEMPT_LOOPBACK="false",
    )
    other = Admission(world.settings, world.shared, world.stats, clock=lambda: world.now)
    assert all(isinstance(world.enter(f"10.0.0.{n}"), Admit) for n in range(3))
    assert all(isinstance(other.enter(UpgradeRequest(f"10.0.1.{n}")), Admit) for n in range(2))
    assert world.refused("127.0.0.1").status == 429
    assert isinstance(other.enter(UpgradeRequest("10.0.1.9")), Refuse)


def test_behind_a_proxy_it_is_the_client_that_counts() -> None:
    """A header of somebody who is not trusted says nothing."""
    world = World(WS_UPGRADE_RATE="1", WS_UPGRADE_BURST="1", WS_TRUSTED_PROXIES="127.0.0.1")
    for client in ("10.0.0.1", "10.0.0.2"):
        verdict = world.enter("127.0.0.1", forwarded_for=client)
        assert isinstance(verdict, Admit)
        assert verdict.address == client
    assert world.refused("127.0.0.1", forwarded_for="10.0.0.1").reason == "rate"
    assert world.refused("10.0.0.1", forwarded_for="10.0.0.9").reason == "rate"


def test_origins() -> None:
    """403 for a page that is not listed; programs have none, and may unless it is required."""
    world = World(WS_ORIGINS="https://odin.example")
    assert isinstance(world.enter(origin="https://odin.example"), Admit)
    assert isinstance(world.enter(), Admit)
    verdict = world.refused(origin="https://evil.example")
    assert (verdict.status, verdict.reason, verdict.retry_after_seconds) == (403, "origin", None)
    assert World(WS_ORIGIN_REQUIRED="true").refused().status == 403


def test_tokens() -> None:
    """401 without one; with one, its subject, its end and its permissions; the subprotocol is answered."""
    world = World(WS_JWT_SECRET=SECRET)
    verdict = world.refused()
    assert (verdict.status, verdict.reason) == (401, "unauthorised")
    assert ("WWW-Authenticate", "Bearer") in verdict.headers
    admitted = world.enter(protocols=f"odinws, bearer.{token()}")
    assert isinstance(admitted, Admit)
    assert admitted.subprotocol == "odinws"
    assert (admitted.identity.subject, admitted.identity.expires_at) == ("42", NOW + 65)
    assert DEFAULT.allows(admitted.identity, "user.42")
    assert not DEFAULT.allows(admitted.identity, "user.43")
    assert world.refused(authorization=f"Bearer {token(exp=NOW - 60)}").message == "the token has expired"
    assert world.refused(query=f"token={token()[:-4]}AAAA").status == 401
    assert world.refused(authorization=f"Bearer {token()}", query=f"token={token()}").status == 400
    assert world.refused(authorization=f"Bearer {token(channels=['x'])}").status == 403


def test_no_token_is_ever_logged() -> None:
    """Nor a part of one."""
    world = World(WS_JWT_SECRET=SECRET)
    given = token(exp=NOW - 60)
    with capture_logs() as logs:
        verdict = world.refused(authorization=f"Bearer {given}")
    assert logs
    assert not any(part in f"{logs} {verdict}" for part in given.split("."))


def test_without_a_token_where_that_is_allowed() -> None:
    """The public channels."""
    world = World(WS_JWT_SECRET=SECRET, WS_ALLOW_ANONYMOUS="true")
    verdict = world.enter()
    assert isinstance(verdict, Admit)
    assert verdict.identity.permissions is None


def test_refresh() -> None:
    """Another token of the same subject; any where nobody is asked for one."""
    world = World(WS_JWT_SECRET=SECRET)
    verdict = world.enter(authorization=f"Bearer {token()}")
    assert isinstance(verdict, Admit)
    assert world.admission.refresh(verdict.identity, token(exp=NOW + 600)).expires_at == NOW + 605
    with pytest.raises(AccessError, match="another subject"):
        world.admission.refresh(verdict.identity, token(sub="43"))
    assert World().admission.refresh(ANONYMOUS, "of somebody else") == ANONYMOUS


@pytest.mark.parametrize(
    "asked",
    [
        {"authorization": "Bearer opaque"},
        {"authorization": f"Bearer {'x' * 9000}"},
        {"query": "token=opaque"},
        {"query": "token=a&access_token=b"},
        {"query": "&".join(f"a{n}=1" for n in range(100))},
        {"authorization": "Bearer opaque", "protocols": "odinws, bearer.opaque"},
        {"protocols": "bearer.opaque"},
    ],
)
def test_where_nobody_is_asked_for_a_token_none_is_looked_at(asked: dict[str, str]) -> None:
    """It may be a gateway's, or a proxy's, or whatever."""
    verdict = World().enter(is_local=False, **asked)
    assert isinstance(verdict, Admit)
    assert verdict.identity == ANONYMOUS
    assert verdict.subprotocol == ("odinws" if "odinws" in asked.get("protocols", "") else None)


def test_a_key_that_can_not_be_used_stops_the_start() -> None:
    """With a text that has nothing of it."""
    with pytest.raises(SettingsError) as caught:
        World(WS_JWT_SECRET="x" * 8)
    assert (caught.value.name, caught.value.value) == ("WS_JWT_SECRET", "***")
    assert "xxx" not in str(caught.value)


def test_refusals_cost_no_token_of_the_guard_and_no_slot() -> None:
    """Who may not enter takes nothing from those who may."""
    world = World(WS_MAX_CONNECTIONS="1", WS_ORIGINS="https://odin.example")
    for _ in range(5):
        world.refused(origin="https://evil.example")
    assert isinstance(world.enter(), Admit)


def test_many_refusals_come_back_later() -> None:
    """Up to a hundred a second wait as the guard says, ten times as many ten times as long."""
    world = World(WS_MAX_CONNECTIONS="1", WS_UPGRADE_RATE="0")
    assert isinstance(world.enter(), Admit)

    def wait_at(rate: int) -> int:
        for _ in range(30):
            for _ in range(rate):
                verdict = world.refused()
            world.now += 1
            world.admission.observe()
        return verdict.retry_after_seconds or 0

    assert wait_at(90) == 20
    assert 190 <= wait_at(1000) <= 200
    assert wait_at(3000) == 300
    assert wait_at(10) == 20


def test_an_address_has_so_many_connections() -> None:
    """Whoever leaves, and whoever is not admitted after all, makes room; this machine is exempt."""
    world = World(WS_MAX_PER_ADDRESS="2", WS_MAX_CONNECTIONS="4")
    first = world.enter("10.0.0.1")
    assert isinstance(first, Admit)
    assert isinstance(world.enter("10.0.0.1"), Admit)
    verdict = world.refused("10.0.0.1")
    assert (verdict.status, verdict.reason) == (429, "address")
    assert verdict.message == "your address has 2 connections, and may have no more"
    assert verdict.retry_after_seconds is not None
    assert [isinstance(world.enter("127.0.0.1"), Admit) for _ in range(2)] == [True, True]
    assert [world.refused("10.0.0.2").reason for _ in range(3)] == ["capacity"] * 3
    world.stats.connections -= 1
    world.admission.left(first.address, first.identity)
    assert isinstance(world.enter("10.0.0.1"), Admit)


def test_an_address_of_ipv6_is_its_network() -> None:
    """A household has a /64 for itself."""
    world = World(WS_MAX_PER_ADDRESS="1")
    assert isinstance(world.enter("2001:db8::1"), Admit)
    assert world.refused("2001:db8::2").reason == "address"
    assert isinstance(world.enter("2001:db8:0:1::1"), Admit)


def test_a_subject_has_so_many_connections() -> None:
    """From wherever it comes; also one that becomes it by another token."""
    world = World(WS_JWT_SECRET=SECRET, WS_MAX_PER_SUBJECT="1", WS_ALLOW_ANONYMOUS="true")
    bearer = f"Bearer {token()}"
    verdict = world.enter("10.0.0.1", authorization=bearer)
    assert isinstance(verdict, Admit)
    refused = world.refused("127.0.0.1", authorization=bearer)
    assert (refused.status, refused.reason) == (429, "subject")
    anonymous = world.enter("10.0.0.2")
    assert isinstance(anonymous, Admit)
    with pytest.raises(AccessError, match="as many connections as it may have"):
        world.admission.refresh(anonymous.identity, token())
    assert world.admission.refresh(verdict.identity, token()).subject == verdict.identity.subject
    world.admission.left(verdict.address, verdict.identity)
    identity = world.admission.refresh(anonymous.identity, token())
    world.admission.left(anonymous.address, identity)
    assert isinstance(world.enter(authorization=bearer), Admit)


def test_without_limits_nothing_is_counted() -> None:
    """0 is no limit."""
    world = World(WS_JWT_SECRET=SECRET, WS_MAX_PER_SUBJECT="0", WS_MAX_PER_ADDRESS="0")
    for _ in range(300):
        assert isinstance(world.enter(authorization=f"Bearer {token()}"), Admit)
