"""HTTP: the routes, and the upgrade from a request to a WebSocket.

routes       the paths of the public port              admin     the paths of the admin plane
debug        those of `/debug`
application  Flask, with a short way for upgrades      head      reads the heads of requests
handover     the handshake: gives the socket away      tls       a WebSocket over TLS
listener     accepts clients                           queue     whose request is served next
"""
