"""Clients that come, go and change their channels, for as long as they are told to, by a seed."""

from __future__ import annotations

from random import Random

from odinws.feed.simulator import TOKENS
from tests.life import State
from tests.swarm import Swarm

CHANNELS = [*(f"token.{token}" for token in TOKENS), "global"]
MOVES_PER_CLIENT_SECOND = 0.02  # so that each stays for about a minute

_AWAY = 0.05  # of the clients, at any time
_MAX_CHANNELS = 5
_SLICE = 50  # that connect at once when all are new


class Population:
    """The clients of one swarm, numbered from 0.

    With each move one leaves, by the closing handshake, a reset or without a word; one comes back; and two
    change their channels. So as many are there after it as before.

    Args:
        clients: how many there are, at least 2; a few of them are away at any time.
        dice: say who does what.

    Attributes:
        present: numbers of those that are there, or on their way.
    """

    def __init__(self, swarm: Swarm, clients: int, dice: Random) -> None:
        self._swarm = swarm
        self._dice = dice
        self._due = 0.0
        away = max(1, round(clients * _AWAY))
        self.present = list(range(away, clients))
        self._away = list(range(away))

    def fill(self) -> None:
        """Let all connect, some at a time; returns when they are in."""
        for at in range(0, len(self.present), _SLICE):
            for number in self.present[at : at + _SLICE]:
                self._join(number)
            self._swarm.settle()

    def step(self, seconds: float) -> None:
        """Do what is due after so much more time. Returns at once."""
        self._due += seconds * MOVES_PER_CLIENT_SECOND * len(self.present)
        while self._due >= 1.0:
            self._due -= 1.0
            self._move()

    def missing(self) -> int:
        """How many should be there and are not; when all is settled that is a fault."""
        return sum(self._swarm.now[number].state is not State.OPEN for number in self.present)

    def _move(self) -> None:
        place = self._dice.randrange(len(self.present))
        number = self.present[place]
        # One that is on its way may be left alone: what became of it would be anybody's guess.
        life = self._swarm.now.get(number)
        if life is not None and life.state is State.OPEN:
            self._swarm.disconnect(number, self._dice.choice(("close", "reset", "vanish")))
            back = self._dice.randrange(len(self._away))
            self.present[place], self._away[back] = self._away[back], number
            self._join(self.present[place])
        self._swarm.subscribe(self._dice.choice(self.present), self._channels())
        self._swarm.unsubscribe(self._dice.choice(self.present), self._channels())

    def _join(self, number: int) -> None:
        self._swarm.connect(number)
        self._swarm.subscribe(number, self._channels())

    def _channels(self) -> list[str]:
        return self._dice.sample(CHANNELS, self._dice.randint(1, _MAX_CHANNELS))
