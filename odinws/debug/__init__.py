"""What `/debug` shows of a worker: profiles, heap, greenlets, locks, garbage collection, connections."""
