"""All clients are cut off at once, again and again, and resume where they were: nothing may be missing.

    locust -f locustfiles/storm.py --headless --run-time 120s --host ws://127.0.0.1:3004 \
        --odin-connections 5000 --odin-storm-every 20

When a client comes back is said by the pure core of the public client library, its backoff. The library's
whole `Client` has a thread and reads each message as JSON, too much for thousands in one process. So what was
heard is kept, and what is missing counted, by the swarm: exactly, over all connections of a client.
"""

from odinws.swarm.scenario import Clients, Library, install


class Storm(Clients):
    """Each holds a share of the connections, and their clients come back as the library does."""


install(Library, resume=True, storm_every=20.0)
