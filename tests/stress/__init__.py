"""Stress scenarios: they strain a real server and then check exact numbers.

Each scenario is random but reproducible by its seed: ODINWS_STRESS_SEED=... pytest tests/stress. Each ends
with
`leaks.assert_no_leaks`: no connection, greenlet, descriptor or memory may be left of it.
"""
