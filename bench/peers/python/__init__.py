"""The Python peers, started with `python -m`."""
