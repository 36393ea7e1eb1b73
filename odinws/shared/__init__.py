"""The shared state: what all processes of a server know of each other, in shared memory."""

from odinws.shared.state import CHOICES, SLOTS, SharedState

__all__ = ["CHOICES", "SLOTS", "SharedState"]
