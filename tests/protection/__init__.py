"""What protects the server and its clients, shown at full size: `python -m tests.protection ramp`.

ramp        thousands come in while the CPU is taken: admission falls and never stops, who is in loses nothing
kill        a worker is killed: counts are right at once, its clients come back within the rate
drain       the server stops: close frames are spread evenly, with a time to come back, and then it is gone
reload      all workers are replaced under load: nobody is refused, nothing is lost within a connection
slowloris   thousands of half-sent requests do not keep healthy clients out

proof            what a proof found, and how it is shown
crowd            clients that reconnect as the server says
scene            a server, its NATS, a feed and a crowd
background_load  processes that use the CPU, and attackers
windows          figures of points in time
"""
