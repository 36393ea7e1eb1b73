"""One of two workers is killed: its clients all come back at once, or would."""

from __future__ import annotations

import json
import os
import signal
import time

from tests.life import State
from tests.protection.proof import Plan, Proof
from tests.protection.scene import Scene, scene
from tests.protection.windows import most_within
from tests.server import wait_for
from tests.wire import Peer, request

FULL = Plan(5_000, 60.0, 2)
REDUCED = Plan(500, 20.0, 2)


def right_seconds(plan: Plan) -> float:
    """Within which all counts are right again. Clients come back when they have been looked at."""
    return 6.0 if plan.is_reduced else 2.0


def limit(plan: Plan) -> tuple[int, int]:
    """Upgrades per second of the whole server, and at once."""
    return max(150, plan.connections // 20), max(50, plan.connections // 50)


def run(plan: Plan) -> Proof:
    """Kill a worker, look at the counts, let everybody come back; that may take `plan.seconds`."""
    (rate, burst), right = limit(plan), right_seconds(plan)
    proof = Proof(f"kill: {plan.connections} clients of two workers, {rate} upgrades/s, {burst} at once")
    settings = {
        "WS_MAX_CONNECTIONS": str(plan.connections),
        "WS_SERVER_UPGRADE_RATE": str(rate),
        "WS_SERVER_UPGRADE_BURST": str(burst),
        "WS_UPGRADE_RATE": "0",  # all clients have one address
        "WS_MAX_PER_ADDRESS": "0",
        "WS_UPGRADE_EXEMPT_LOOPBACK": "false",  # from the rate of the server
        "WS_CPU_REJECT_THRESHOLD": "100",  # the rate alone is looked at
        "WS_HUB_LAG_THRESHOLD_MS": "60000",
    }
    with scene(plan, settings, lost_seconds=(right + 0.2, right + 0.7)) as play:
        play.crowd.enter(range(plan.connections), rate)
        assert play.wait_inside(plan.connections, 2 * plan.connections / rate + 60), (
            "the crowd does not get in"
        )
        victim, other = play.server.json("/stats")["workers"]
        before = {guest.index: guest for guest in play.crowd.guests() if guest.state is State.OPEN}
        os.kill(victim["pid"], signal.SIGKILL)
        killed = time.time()
        play.check_counts(proof, other["connections"], right)
        seconds = time.time() - killed
        proof.check(f"within {right:g} s of the kill", seconds < right, seconds)
        back = play.wait_inside(plan.connections, plan.seconds)
        proof.check("everybody came back", back, play.inside())
        lost = [guest for guest in before.values() if guest.state is State.ENDED]
        proof.check(
            "only the killed worker's clients were cut off", len(lost) == victim["connections"], len(lost)
        )
        _judge_return(proof, play, killed, rate, burst)
        _judge_server(proof, play, plan, victim["pid"])
        play.check_delivery(proof)
    return proof


def _judge_return(proof: Proof, play: Scene, killed: float, rate: int, burst: int) -> None:
    admissions = play.crowd.admissions()
    returns = [at for at in admissions if at > killed]
    proof.fact("clients that came back", len(returns))
    proof.fact("until the last was back, s", max(returns, default=killed) - killed)
    proof.fact("refused on the way back", sum(at > killed for at in play.crowd.refusals()))
    most = most_within(admissions, 1.0)
    proof.check(f"never more than {rate} + {burst} upgrades in 1 s", most <= rate + burst, most)


def _judge_server(proof: Proof, play: Scene, plan: Plan, victim: int) -> None:
    server = play.server
    play.check_counts(proof, plan.connections)
    told: dict[int, int] = {}

    def both() -> bool:
        stats = server.json("/stats")
        told[stats["answered_by"]] = stats["connections"]
        return len(told) == 2

    wait_for(both, 10.0, "an answer of both workers")
    proof.check("both workers say the same", set(told.values()) == {plan.connections}, told)
    workers = {worker["pid"]: worker["connections"] for worker in server.json("/stats")["workers"]}
    serves = victim not in workers and len(workers) == 2 and min(workers.values()) > 0
    proof.check("the new worker serves", serves, list(workers.values()))
    time.sleep(1.0)  # so that the rate does not refuse
    with Peer(server.port) as peer:
        answer = peer.send(request()).http()
        why = json.loads(peer.body(answer))["error"] if answer.status == 503 else answer.status
    proof.check("the cap holds for one more", why == "capacity", why)
