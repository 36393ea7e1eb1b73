"""Fan-out: from the feed to all subscribers, and recovery of missed messages.

hub       delivers what the feed brought, in passes    backlog      what waits between feed and hub
ring      the ring buffer of the latest messages       recovery     resume and replay
resizing  live resize of the strategy                  observer     is told the counts of passes
"""
