"""Scenarios that strain a real server and then ask for exact figures.

Each one draws from a seed, so that it can be played again: ODINWS_STRESS_SEED=... pytest tests/stress.
Each one ends with the same question, `rest.at_rest`: is nothing left of it?
"""
