"""HTTP: the routes, and the upgrade from a request to a WebSocket.

routes    all paths but `/debug`                       debug     the paths of `/debug`
handover  pywsgi's handler: gives the socket away      handshake validates an upgrade request
edge      what all routes share                        tls       a WebSocket over TLS
"""
