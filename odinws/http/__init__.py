"""HTTP: the routes, and the upgrade from a request to a WebSocket.

routes    all paths but `/debug`                       debug     the paths of `/debug`
handover  the handshake: gives the socket away        tls       a WebSocket over TLS
"""
