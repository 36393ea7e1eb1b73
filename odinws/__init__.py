"""A WebSocket server that carries a live NATS feed to ten thousand and more clients."""

__version__ = "0.1.0"
