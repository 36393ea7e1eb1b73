"""The feed: receives messages from NATS and hands them to the hub.

nats            the feed of a worker: sessions, retries    cursor   the position in the stream
session         one connection to NATS, until it fails; the intake, which outlives it
tap             takes the messages from the bytes of a connection
events          what the hub receives                      status   the state of the feed
stream          finds or creates the JetStream stream      history  reads past messages of the stream
authentication  credentials and TLS for NATS               greenlet_loop  asyncio in a greenlet
embedded        the embedded nats-server                   publisher, simulator  the demo feed
"""
