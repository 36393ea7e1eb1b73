"""Rollout by flag: strategies change on a server under load, and nobody notices.

`python -m tests.rollout` does it at full size.
"""
