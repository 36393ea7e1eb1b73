"""Clients that leave and come back all the time, anew, while the others stay.

    locust -f locustfiles/churn.py --headless --run-time 60s --host ws://127.0.0.1:3004 \
        --odin-connections 2000 --odin-churn 100
"""

from odinws.swarm.scenario import Clients, Patience, install


class Churn(Clients):
    """Each holds a share of the connections."""


install(Patience, churn=50.0)
