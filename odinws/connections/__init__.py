"""The connections of a worker.

clients     the registry: open, timers, close      connection  one client's WebSocket
commands    executes clients' commands             outbox      what a socket has not accepted yet
wheel       one timer for all connections         tcp         TCP_INFO of a socket
echo        a connection that echoes, for tests
"""
