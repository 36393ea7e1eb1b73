"""What attackers send. Each vector is a small function, and a line that says which bound should stop it."""

from __future__ import annotations

from tests.attack.vectors import before, centrifugo, events, inside, memory, slots, work
from tests.attack.vectors.base import Vector

WORST = memory.WORST

VECTORS: dict[str, Vector] = {
    vector.name: vector
    for module in (memory, work, before, slots, centrifugo, events, inside)
    for vector in module.VECTORS
}
