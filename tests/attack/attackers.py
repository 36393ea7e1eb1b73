"""All attackers of a vector in one process, so that they take nothing of the time of those who measure.

It reads what to do as JSON from its input, waits for a further line, and tells what came of it, as JSON too.
"""

from __future__ import annotations

import asyncio
import sys
import time

import msgspec

from tests.attack.attacker import Attacker, Plan, SpentError, TurnedAwayError
from tests.attack.vectors import VECTORS, WORST
from tests.attack.vectors.base import Move

_LATE = 10  # times as long an attack may take on a machine that is busy
COMMAND = (sys.executable, "-m", "tests.attack.attackers")


class Outcome(msgspec.Struct, frozen=True):
    """What came of an attack, over all attackers.

    Attributes:
        sent: bytes, without TCP's own.
        connected: connections that TCP made; upgraded: those that became WebSockets.
        turned_away: how often the server refused, closed, or did not answer.
        held: connections that the server had in the end.
        breaches: what was had of the inside, a line each.
    """

    sent: int
    connected: int
    upgraded: int
    turned_away: int
    held: int
    breaches: list[str]


async def attack(plan: Plan) -> Outcome:
    """Have all attackers of a vector do their worst for a time; what came of it."""
    vector = WORST if plan.vector == WORST.name else VECTORS[plan.vector]
    attackers = [Attacker(plan, plan.first + number) for number in range(plan.attackers)]
    lanes = [
        asyncio.create_task(_lane(vector.move, attacker)) for attacker in attackers for _ in range(plan.lanes)
    ]
    done, waiting = await asyncio.wait(lanes, timeout=plan.seconds)
    late = time.monotonic() + _LATE * plan.seconds
    while not done and sum(each.upgraded for each in attackers) < plan.least and time.monotonic() < late:
        done, waiting = await asyncio.wait(lanes, timeout=plan.seconds)
    held = sum(line.is_established for attacker in attackers for line in attacker.lines)
    for task in waiting:
        task.cancel()
    for task in done:
        task.result()  # raises: a lane never ends but by a defect
    return Outcome(
        sum(plan.budget - attacker.left for attacker in attackers),
        sum(attacker.connected for attacker in attackers),
        sum(attacker.upgraded for attacker in attackers),
        sum(attacker.turned_away for attacker in attackers),
        held,
        list(dict.fromkeys(breach for attacker in attackers for breach in attacker.breaches)),
    )


async def _lane(move: Move, attacker: Attacker) -> None:
    """Do it again whenever the server has ended it, for as long as there is a budget."""
    while True:
        try:
            line = await move(attacker)
            if line is not None:
                await line.gone()
                attacker.turned_away += 1
        except SpentError:
            await asyncio.Event().wait()  # what is held stays
        except (OSError, TurnedAwayError):  # TimeoutError is an OSError
            attacker.turned_away += 1
        await asyncio.sleep(attacker.dice.uniform(0, attacker.plan.retry_seconds))


def main() -> None:
    """Read the plan, wait for a word, attack, tell."""
    plan = msgspec.json.decode(sys.stdin.readline(), type=Plan)
    sys.stdin.readline()
    outcome = asyncio.run(attack(plan))
    sys.stdout.write(msgspec.json.encode(outcome).decode() + "\n")


if __name__ == "__main__":
    main()
