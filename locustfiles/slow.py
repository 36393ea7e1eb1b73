"""Some clients read slowly; the others must not notice. The slow ones' messages are not timed.

    locust -f locustfiles/slow.py --headless --run-time 120s --host ws://127.0.0.1:3004 \
        --odin-connections 1000 --odin-slow 0.1 --odin-slow-bytes 200

What becomes of the slow ones is the server's `WS_SLOW_POLICY`: they are closed with 4008 and come back, or
get gaps. Neither is a loss: nothing is missing that nobody told of.
"""

from odinws.swarm.scenario import Clients, Patience, install


class Slow(Clients):
    """Each holds a share of the connections."""


install(Patience, slow=0.1)
