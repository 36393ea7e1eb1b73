"""All workers are replaced under load, and clients come back as they are told."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Iterator

from tests.life import State
from tests.protection.crowd import Guest
from tests.protection.proof import Plan, Proof
from tests.protection.scene import scene
from tests.protection.windows import share
from tests.server import wait_for

FULL = Plan(5_000, 10.0, 4)
REDUCED = Plan(500, 1.0, 4)
_ENTER_RATE = 500.0


def run(plan: Plan) -> Proof:
    """Reload a server each of whose workers drains for `plan.seconds`."""
    proof = Proof(f"reload: {plan.connections} clients, WS_DRAIN_SECONDS={plan.seconds:g}")
    settings = {
        "WS_MAX_CONNECTIONS": str(2 * plan.connections),
        "WS_DRAIN_SECONDS": str(plan.seconds),
        "WS_CPU_REJECT_THRESHOLD": "100",
    }
    with scene(plan, settings) as play:
        crowd, server = play.crowd, play.server
        crowd.enter(range(plan.connections), _ENTER_RATE)
        assert play.wait_inside(plan.connections, plan.connections / _ENTER_RATE + 60), "the crowd is not in"
        before = set(server.workers())
        first = len(crowd.guests())
        server.signal(signal.SIGHUP)
        began = time.time()

        def replaced() -> bool:
            now = set(server.workers())
            return not before & now and len(now) == len(before)

        wait_for(replaced, 2 * plan.seconds + 40, "other workers")
        proof.fact("until all workers were others, s", time.time() - began)
        back = play.wait_inside(plan.connections, 60.0)
        guests = crowd.guests()
        ended = [guest for guest in guests if guest.state is State.ENDED and guest.admitted]
        codes = {guest.close_code for guest in ended}
        late = [
            after.answered_at - (guest.goodbye_at or guest.answered_at) - (guest.hint_seconds or 0.0)
            for guest, after in _successions(guests)
            if after.admitted
        ]
        proof.fact("connections closed", len(ended))
        most = max(Counter(guest.index for guest in ended).values(), default=0)
        proof.fact("closed of one client, most", most)
        proof.fact(
            "until back behind the hint, p99, longest, s", f"{share(late, 0.99):.2f} · {share(late, 1):.2f}"
        )
        proof.fact("told to come later", len(crowd.refusals()))
        # A busy machine may not be able to serve all who come back at one time.
        proof.check("no limit refused anybody", set(play.refused()) <= {"overload", "gone"}, play.refused())
        proof.check("everybody was answered", crowd.unanswered() == 0, crowd.unanswered())
        proof.check("everybody heard 1012", codes == {1012}, sorted(codes))
        proof.check("each with a time to come back", all(g.hint_seconds for g in ended), len(ended))
        proof.check("everybody was moved", len(guests) - first >= plan.connections, len(guests) - first)
        proof.check("everybody is back", back, play.inside())
        play.check_counts(proof, plan.connections)
        play.check_delivery(proof)
    return proof


def _successions(guests: list[Guest]) -> Iterator[tuple[Guest, Guest]]:
    """Each connection with the next one of its client."""
    last: dict[int, Guest] = {}
    for guest in guests:
        if guest.index in last:
            yield last[guest.index], guest
        last[guest.index] = guest
