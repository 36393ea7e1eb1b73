"""Load: one engine of many WebSocket clients in a process, and what Locust's scenarios are made of.

It sees a server from outside: of `odinws` it uses only the backoff of the public client library and how a
histogram is read.
"""
