"""Clients that connect, subscribe, stay, and check exactly what they get.

    locust -f locustfiles/fanout.py --headless --users 1 --run-time 60s --host ws://127.0.0.1:3004 \
        --odin-connections 2000 --odin-ramp 200 --odin-mode all --odin-record fanout.jsonl

A user of Locust holds its share of the connections, so one per process is enough. See docs/swarm.md.
"""

from odinws.swarm.scenario import Clients, Patience, install


class Fanout(Clients):
    """Each holds a share of the connections."""


install(Patience)
