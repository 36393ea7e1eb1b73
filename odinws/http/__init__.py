"""HTTP: the routes, and how a socket becomes a WebSocket."""
