"""Hours in small: `python -m tests.soak --minutes 20 --clients 500 --seed 1`.

A real server carries a steady feed while clients come and go without pause. Every few seconds they stop for a
moment: then all counts must agree, and what the server uses is noted. At the end nothing may have been lost,
and what it uses must not have grown.

population   clients that come, go and change their channels, by a seed
samples      all counts, and what each worker uses, at one moment; sampling takes them
judging      what the samples prove: pure, and tested with planted leaks
run          puts them together, and holds what the clients got against the stream
report       the table and the picture
"""
