"""What benchmarks, experiments, the lab and tests share to run servers as processes and to judge numbers.

A server is a black box here: a command, an environment, what it answers over HTTP.
"""
