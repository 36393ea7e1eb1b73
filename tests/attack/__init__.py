"""What strangers can do to a server with a megabyte each: `python -m tests.attack --seconds 4`.

A real server stands in a network namespace of its own; attackers, and a few honest clients, reach it over a
cable from another one, each by an address of its own. Whatever the attackers do, the server's memory may rise
by little, the honest clients may wait for little, nobody of them is refused, and soon after the attackers
have left all is as it was.

network      two namespaces and the cable; the loopback where there can be none
attacker     a client with a budget of bytes, and the process that many of them run in
vectors      what attackers send, and which bound should stop it: one small function each
honest       clients that behave, and how long they wait; a process of its own
stage        a server with its NATS and the honest clients
trial        one vector against a stage: before, meanwhile, afterwards
judging      what must hold: pure
report       the table and the picture
worst        thousands of connections that hold all they may
"""
