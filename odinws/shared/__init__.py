"""The shared state: what all processes of a server know of each other, in shared memory."""

from odinws.shared.state import ASSIGNMENTS, SLOTS, SharedState

__all__ = ["ASSIGNMENTS", "SLOTS", "SharedState"]
