"""Official clients against this server: `python -m tests.sdks chaos --clients 50`.

agents      programs of one kind of client each: centrifuge-js, centrifuge-python, EventSource, curl
tracks      whether an application was given all that is due to it, or told what is missing
guests      these clients in the middle of the chaos of `tests.resuming`
suites      the clients' own test suites
"""
