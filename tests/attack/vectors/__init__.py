"""What attackers send. Each vector is a small function, and a line that says which bound should stop it."""

from __future__ import annotations

from tests.attack.vectors import before, inside, memory, slots, work
from tests.attack.vectors.base import Vector

WORST = memory.WORST

VECTORS: dict[str, Vector] = {
    vector.name: vector
    for vector in (*memory.VECTORS, *work.VECTORS, *before.VECTORS, *slots.VECTORS, *inside.VECTORS)
}
