"""Many clients that resume while parts of the server die: `python -m tests.resuming chaos --clients 1000`.

crowd    clients that come, go and resume, in one thread; each checks that its sequence has no hole
chaos    kills workers, restarts NATS, reloads, and holds what the crowd heard against the stream
storm    all clients of a server come back at one moment: the live feed goes on, and all catch up
"""
