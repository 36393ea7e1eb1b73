"""Messages come in: from NATS to values that the hub takes.

nats       the bridge, for the life of a worker      session    one connection to NATS, until it goes wrong
intake     what outlives sessions: counts, status    cursor     the place in the sequence. Pure.
events     what the hub is told. Pure.               status     how the feed is
stream     the JetStream stream                      history    what it still has, in pages
selector   asyncio in a greenlet                     identification  who we are to NATS
embedded   a nats-server of our own                  publisher, simulator    the demo feed
"""
