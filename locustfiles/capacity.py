"""How many connections the server takes: they come at a rate, all stay, and each is tried once.

    locust -f locustfiles/capacity.py --headless --host ws://127.0.0.1:3004 \
        --odin-connections 10000 --odin-ramp 100 --odin-sustain 60 --processes 2

Every 10 s a line of the table that the predecessor's test printed; that table follows ours. The shape
decides on users and time, so `--users`, `--spawn-rate` and `--run-time` have no meaning here.
"""

from odinws.swarm.scenario import Clients, Ramp, install


class Stay(Clients):
    """Each holds a share of the connections."""


class Capacity(Ramp):
    """All come at `--odin-ramp` per second, and stay for `--odin-sustain` seconds."""


install(None, connections=10_000, table=10.0)
