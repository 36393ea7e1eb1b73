"""Swarms for Locust. Black-box: they know the wire format and nothing of the server's code."""
